"""The command line of benchmark_model: its flags, how it reads them, and which it logs."""

import dataclasses
from collections.abc import Mapping, Sequence

from .output import Log, Style, number

Value = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag. `label` is how its value is logged; without one it is not."""

    name: str
    default: Value
    label: str
    help: str

    @property
    def kind(self) -> str:
        return {bool: "bool", int: "int32", float: "float", str: "string"}[type(self.default)]

    def parse(self, text: str) -> Value:
        """Its value from the text after "=". Raises ValueError."""
        if isinstance(self.default, bool):
            if text not in ("true", "1", "false", "0"):
                raise ValueError(text)
            return text in ("true", "1")
        return type(self.default)(text)


# In the order in which their values are logged.
FLAGS = (
    Flag("verbose", False, "Log parameter values verbosely", "log unset parameters too"),
    Flag("num_runs", 50, "Min num runs", "runs at least"),
    Flag("min_secs", 1.0, "Min runs duration (seconds)", "seconds of runs at least"),
    Flag("max_secs", 150.0, "Max runs duration (seconds)", "no run starts after so many seconds"),
    Flag("run_delay", -1.0, "Inter-run delay (seconds)", "seconds between runs"),
    Flag("run_frequency", -1.0, "Number of prorated runs per second", "runs per second"),
    Flag("num_threads", -1, "Num threads", "threads"),
    Flag("use_caching", False, "Use caching", "cache packed weights"),
    Flag("benchmark_name", "", "Benchmark name", "name"),
    Flag("output_prefix", "", "Output prefix", "prefix"),
    Flag("warmup_runs", 1, "Min warmup runs", "runs before at least"),
    Flag("warmup_min_secs", 0.5, "Min warmup runs duration (seconds)", "seconds of runs before at least"),
    Flag("dry_run", False, "Run w/o invoking kernels", "load only"),
    Flag("report_peak_memory_footprint", False, "Report the peak memory footprint", "report peak memory"),
    Flag("memory_footprint_check_interval_ms", 50, "Memory footprint check interval (ms)", "ms between checks"),
    Flag("graph", "", "Graph", "model file"),
    Flag("signature_to_run_for", "", "Signature to run", "signature"),
    Flag("input_layer", "", "Input layers", "names of inputs"),
    Flag("input_layer_shape", "", "Input shapes", "shapes of inputs"),
    Flag("allow_fp16", False, "Allow fp16", "allow fp16"),
    Flag("require_full_delegation", False, "Require full delegation", "fail unless a delegate takes all"),
    Flag("enable_op_profiling", False, "Enable op profiling", "time each op"),
    Flag("help", False, "print out all supported flags", "print this"),
    Flag("use_xnnpack", False, "Use xnnpack", "apply XNNPACK; unset: where built in"),
    Flag("use_gpu", False, "Use gpu", "apply the GPU delegate"),
    Flag("gpu_precision_loss_allowed", True, "Allow lower precision in gpu", "fp16 on the GPU"),
    Flag("use_nnapi", False, "Use NNAPI", "apply NNAPI"),
    Flag("nnapi_accelerator_name", "", "NNAPI accelerator name", "NNAPI accelerator"),
    Flag("disable_nnapi_cpu", False, "Disable NNAPI cpu", "no NNAPI reference implementation"),
)
NAMES = {flag.name: flag for flag in FLAGS}
ALWAYS_LOGGED = ("verbose", "graph", "signature_to_run_for")


class UsageError(Exception):
    """The command line cannot be read, or asks for help; the message is what there is to say before the usage."""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Values of all flags, by name, and the names of those that were given."""

    values: Mapping[str, Value]
    given: frozenset[str]
    unknown: Sequence[str]

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def number(self, name: str) -> float:
        value = self.values[name]
        assert not isinstance(value, str)
        return value

    def text(self, name: str) -> str:
        return str(self.values[name])

    def log(self, log: Log, style: Style) -> None:
        """Prints the values as the tool does before it loads the model."""
        for flag in FLAGS:
            if flag.name == "signature_to_run_for" and not style.signature:
                continue
            if flag.name in self.given or flag.name in ALWAYS_LOGGED or self["verbose"]:
                log.info(f"{flag.label}: [{_shown(self[flag.name])}]")
            # The tool's CPU provider logs the threads a second time, after the flags of the tool itself.
            if flag.name == "help" and ("num_threads" in self.given or self["verbose"]):
                log.info(f"#threads used for CPU inference: [{self['num_threads']}]")


def parse(words: Sequence[str], style: Style) -> Parameters:
    """Reads the words after the program's name. The first of a repeated flag counts. Raises UsageError."""
    values: dict[str, Value] = {flag.name: flag.default for flag in FLAGS}
    given: set[str] = set()
    unknown = []
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        known = name in NAMES and (style.signature or name != "signature_to_run_for")
        if not word.startswith("--") or not equals or not known or name in given:
            unknown.append(word)
            continue
        try:
            values[name] = NAMES[name].parse(text)
        except ValueError:
            raise UsageError(f"Failed to parse flag '{name}' against argv '{word}'") from None
        given.add(name)
    if values["help"]:
        raise UsageError("")
    return Parameters(values, frozenset(given), unknown)


def usage(program: str) -> str:
    """The text that follows a mistake."""
    width = max(len(f"--{flag.name}={_shown(flag.default)}") for flag in FLAGS)
    lines = [f"usage: {program} <flags>", "Flags:"]
    for flag in FLAGS:
        default = str(flag.default).lower() if isinstance(flag.default, bool) else _shown(flag.default)
        lines.append(f"\t{f'--{flag.name}={default}':{width}}\t{flag.kind}\toptional\t{flag.help}")
    return "\n".join(lines) + "\n"


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else number(float(value)) if isinstance(value, float) else str(int(value))
