"""A network for this CPU from Python: measure its blocks, learn their cost, search, and time what was found."""

import netlathe as nl

space = nl.load_space("tiny", resolution=16)
nl.profile("runs/cpu.sqlite", space=space, device="local", progress=True)
nl.fit("runs/cpu.sqlite", "runs/cpu.json")
usual_ms = nl.predict(space.architecture(space.reference), "runs/cpu.json").latency_ms
target = nl.Target("runs/cpu.json", ms=0.6 * usual_ms)
found = nl.search(space, "digits", target=target, device="local", profile="runs/cpu.sqlite", output="runs/mine")
print(f"{found.name}: {found.measured_ms:.3g} ms, target {target.ms:.3g} ms, {found.test_accuracy:.1%} right")
nl.export("runs/mine", "runs/mine.onnx")
