"""One file per kind of target, all behind the Device protocol."""
