"""Plant a bug, see red: each entry spoils one line of the package and names the tests that must notice.

Run: python tests/planted_bugs.py [words in the name of a bug]
The package is copied, spoiled and tested in a temporary folder; the working tree is never touched. Exit status
1 if a bug goes unnoticed or a line to spoil is no longer there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    line: str
    spoiled: str
    tests: str


COVERAGE = "tests/validity/test_coverage.py"
STOPPING = "tests/validity/test_stopping.py"
SEQUENTIAL = "tests/bounds/test_sequential.py"
COURSES = "tests/certificates"
BACKENDS, CALIBRATION = "tests/backends", "tests/smoothing/test_calibration.py"
ENCODERS, VLM = "tests/encoders", "tests/smoothing/test_vlm.py"
BOOSTER, MAPPER = "tests/training/test_booster.py", "tests/encoders/test_mapper.py"
CONTINUE = "tests/engine/test_continue.py"
BUGS = (
    Bug("selection draws used again for estimation", "smoothing/streams.py", "STAGES[segment.stage]]", "1]", f"{COVERAGE} -k fair_coin"),
    Bug("all images share one stream", "smoothing/streams.py", "segment.example, STAGES", "0, STAGES", f"{COVERAGE} -k identical_images"),
    Bug("Clopper-Pearson at twice alpha", "bounds/binomial.py", "special.betaincinv(k, n - k + 1, alpha)", "special.betaincinv(k, n - k + 1, 2 * alpha)", "tests/bounds"),
    Bug("tail check removed, proposal too high", "bounds/binomial.py", "while p > 0.0 and tail_upper(k, n, p) > alpha:\n        p = min(p - step", "p = p * (1 + 1e-6)\n    while False:\n        p = min(p - step", "tests/bounds"),
    Bug("off by one in the beta parameters", "bounds/binomial.py", "exact = alpha ** (1.0 / n) if k == n else float(special.betaincinv(k, n - k + 1, alpha))\n    return exact - 1e-11 * exact * (1.0 - exact) if 0.0 < exact < 1.0 else math.nan", "return float(special.betaincinv(k + 1, n - k + 1, alpha))", "tests/bounds"),
    Bug("tail sum misses its own rounding", "bounds/binomial.py", "return min(1.0, max(_FLOOR, total * (1.0 + relative)))", "return min(1.0, max(_FLOOR, total * (1.0 - 1e-9)))", "tests/bounds"),
    Bug("two-sided confidence used one-sided", "certificates/gaussian.py", "clopper_pearson_lower(votes.count(label), n, alpha)", "clopper_pearson_lower(votes.count(label), n, 2 * alpha)", f"tests/certificates {COVERAGE} -k 'fair_coin or smallest'"),
    Bug("pair form spends all of alpha twice", "certificates/gaussian.py", "share = split_alpha(alpha, 2)", "share = alpha", "tests/certificates"),
    Bug("radius rounded to nearest", "certificates/gaussian.py", "steps = math.floor(", "steps = round(", "tests/certificates"),
    Bug("noise error forgotten", "certificates/gaussian.py", "sigma * (_z(p_lower - noise_error) - _z(0.5 + noise_error))", "sigma * _z(p_lower)", "tests/certificates"),
    Bug("claimed class is the one of the estimation draws", "certificates/gaussian.py", "label, n = selection.top(), _draws(estimation)", "label, n = estimation.top(), _draws(estimation)", f"tests/certificates {COVERAGE} -k 'fair_coin or selection'"),
    Bug("non-finite answers dropped from n", "tallies/votes.py", "for _, count in self.counts) + self.nonfinite", "for _, count in self.counts)", "tests/test_tallies.py tests/certificates"),
    Bug("NaN counts as class 0", "smoothing/network.py", "torch.where(finite_rows(outputs), outputs.argmax(dim=1), NONFINITE)", "torch.where(finite_rows(outputs), outputs.argmax(dim=1), 0)", "tests/engine/test_run.py -k nonfinite"),
    Bug("sigma 1 % too small", "smoothing/grid.py", "scale = levels * mpmath.mpf(sigma)", "scale = 0.99 * levels * mpmath.mpf(sigma)", f"tests/smoothing {COVERAGE} -k 'linear or thresholds or law'"),
    Bug("threshold table off by one level", "smoothing/grid.py", 'np.searchsorted(table, exact, side="right")', 'np.searchsorted(table, exact, side="right") + 1', "tests/smoothing"),
    Bug("noise depends on the batch it is drawn in", "smoothing/streams.py", "segment.first * blocks", "(segment.first * blocks) % (1 << 9)", "tests/smoothing"),
    Bug("grid noise added in floats", "smoothing/noise.py", "return GridNoise(float(sigma), int(levels))", "return FloatNoise(float(sigma), int(levels))", "tests/validity/test_float_leak.py tests/smoothing"),
    Bug("batch mates not checked", "smoothing/checks.py", "    for kept in (0, 1):", "    for kept in ():", "tests/engine/test_run.py -k void"),
    Bug("threads not tried", "smoothing/checks.py", "with ThreadPoolExecutor(workers) as pool:", "with ThreadPoolExecutor(1) as pool:", "tests/engine/test_run.py -k threads"),
    Bug("evaluation mode forgotten", "smoothing/network.py", "module.eval().to(self.device)", "module.to(self.device)", "tests/engine/test_run.py -k training_mode"),
    Bug("resume draws the batch after the missing one", "engine/plan.py", "            yield number\n", "            yield min(number + 1, self.batches - 1)\n", "tests/engine/test_plan.py tests/engine/test_run.py"),
    Bug("a kill between commits counts a batch twice", "engine/plan.py", "if not all(stored):", "if not (any(stored) and number % 7):", "tests/engine/test_plan.py tests/faults/test_driver_killed.py"),
    Bug("rows committed in halves", "runlog/store.py", "with sqlite_errors(self.directory), self._connection:\n            self._connection.executemany", "with sqlite_errors(self.directory):\n            self._connection.isolation_level = None\n            self._connection.executemany", "tests/runlog/test_store.py"),
    Bug("another specification is continued", "runlog/store.py", "if writer.specification.identity() == asked.identity() == writer.identity:", "if writer.identity:", "tests/engine/test_run.py tests/runlog/test_store.py"),
    Bug("row hashes not looked at", "runlog/verify.py", "wrong += digest != row.digest(run.identity) or row.tally.total != row.draws", "wrong += row.tally.total != row.draws", "tests/runlog/test_store.py"),
    Bug("draws counted twice are merged", "runlog/reading.py", "if ranges and row.first < ranges[-1][1]:", "if False:", "tests/runlog/test_store.py"),
    Bug("post hoc alpha unmarked", "runlog/reading.py", "alpha_post_hoc=level != rule.alpha", "alpha_post_hoc=False", "tests/runlog/test_store.py"),
    Bug("two writers at once", "runlog/lock.py", "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", "tests/runlog/test_store.py tests/engine/test_run.py"),
    Bug("true sigma of the denoiser forgotten", "denoisers/diffusion.py", "2 * noisy - 1, 2 * sigma, draws", "2 * noisy - 1, sigma, draws", "tests/denoisers"),
    Bug("mean and std exchanged", "networks/preprocessing.py", "return (images - mean) / std", "return (images - std) / mean", "tests/networks/test_preprocessing.py"),
    Bug("shrunk without antialiasing", "networks/preprocessing.py", "antialias=self.antialias\n", "antialias=False\n", "tests/networks/test_preprocessing.py"),
    Bug("channel order forgotten", "networks/preprocessing.py", 'if self.order == "bgr":', "if False:", "tests/networks/test_preprocessing.py"),
    Bug("noisy images clipped before the network", "networks/preprocessing.py", "images = self._resized(images)", "images = self._resized(images.clamp(0, 1))", "tests/networks/test_preprocessing.py"),
    Bug("a model's own processor not asked", "networks/transformers.py", "    confirm(own, ", "    (lambda *_: None)(own, ", "tests/classifiers/test_transformers.py -k something_else"),
    Bug("a random last layer accepted", "networks/transformers.py", "    if lacking:", "    if False:", "tests/classifiers/test_transformers.py -k last_layer"),
    Bug("weights read with their code", "networks/transformers.py", "trust_remote_code=False, weights_only=True", "trust_remote_code=True, weights_only=False", "tests/classifiers/test_transformers.py -k not_run"),
    Bug("labels renumbered the wrong way round", "classifiers/labels.py", "order.argsort()[answers]", "order[answers]", "tests/classifiers/test_labels.py"),
    Bug("scores renumbered the wrong way round", "classifiers/labels.py", "answers[:, order]", "answers[:, order.argsort()]", "tests/classifiers/test_labels.py"),
    Bug("classes of model and data not compared", "engine/specify.py", "order = match(smoothed.classifier, data.classes, data.name)", "order = None", "tests/classifiers/test_labels.py"),
    Bug("a failed request is a vote", "classifiers/requests.py", "raise self._status(error) from error", "return error.read()", "tests/classifiers/test_http.py"),
    Bug("Retry-After not kept to", "classifiers/requests.py", "return float(said)", "return 0.0", "tests/classifiers/test_http.py"),
    Bug("redirects followed", "classifiers/requests.py", "build_opener(_NoRedirects)", "build_opener()", "tests/classifiers/test_http.py"),
    Bug("pictures cut off to 8 bits, not rounded", "classifiers/blackbox.py", "levels.round().to", "levels.to", "tests/classifiers/test_http.py"),
    Bug("secrets of an address stored", "classifiers/http.py", "self.source = without_secrets(url)", "self.source = url", "tests/classifiers/test_http.py"),
    Bug("external weights not hashed", "classifiers/onnx.py", "    if not names:\n", "    if True:\n", "tests/classifiers/test_onnx.py"),
    Bug("a normalisation guessed", "networks/plain.py", "        raise _untold(bare)\n", '        beside = {"mean": 0, "std": 1}\n', "tests/classifiers/test_plain.py"),
    Bug("training: target of another preconditioning", "training/edm.py", "(SIGMA_DATA / total) ** 2", "(SIGMA_DATA / total)", "tests/training/test_edm_and_finetune.py -k target"),
    Bug("training: noise at half its level", "training/edm.py", "math.log(2 * typical_sigma)", "math.log(typical_sigma)", "tests/training/test_edm_and_finetune.py -k spread"),
    Bug("training: the average is not restored", "training/savepoint.py", "for name, part in parts.items():\n            part.load_state_dict", "for name, part in list(parts.items())[:3]:\n            part.load_state_dict", "tests/training/test_edm_and_finetune.py -k 'undisturbed and edm'"),
    Bug("training: dropout goes on with the wrong draws", "training/finetune.py", "torch.manual_seed(draw.initial_seed())", "draw.initial_seed()", "tests/training/test_edm_and_finetune.py -k 'undisturbed and tune'"),
    Bug("training: another training is continued", "training/savepoint.py", 'if state["settings"] != self._settings:', "if False:", "tests/training/test_edm_and_finetune.py -k another"),
    Bug("weight files are unpickled", "checkpoints.py", "weights_only=True", "weights_only=False", "tests/test_checkpoints.py -k code"),
    Bug("precision forgotten", "smoothing/network.py", "mixed is not None, cache", "False, cache", "tests/smoothing/test_precision.py"),
    Bug("minus infinity taken for finite", "smoothing/finite.py", "torch.isfinite(values.amax(inner)) & torch.isfinite(values.amin(inner))", "torch.isfinite(values.amax(inner))", "tests/smoothing/test_finite.py"),
    Bug("finite asked by a sum that overflows", "smoothing/finite.py", "torch.isfinite(values.amax(inner)) & torch.isfinite(values.amin(inner))", "torch.isfinite(values.sum(inner))", "tests/smoothing/test_finite.py"),
    Bug("finite asked by half of the numbers", "smoothing/finite.py", "values.amax(inner)) & torch.isfinite(values.amin(inner))", "values[..., ::2].amax(inner)) & torch.isfinite(values[..., ::2].amin(inner))", "tests/smoothing/test_finite.py"),
    Bug("broken pixels not looked at", "smoothing/network.py", "    return torch.where(finite, torch.where(labels < 0, labels + NONFINITE, labels), NONFINITE)", "    return torch.where(labels < 0, labels + NONFINITE, labels)", "tests/smoothing/test_finite.py"),
    Bug("broken scores not looked at", "smoothing/network.py", "torch.where(finite_rows(outputs), outputs.argmax(dim=1), NONFINITE)", "outputs.argmax(dim=1)", "tests/smoothing/test_finite.py"),
    Bug("a negative label taken for a broken answer", "smoothing/network.py", "torch.where(labels < 0, labels + NONFINITE, labels)", "labels", "tests/smoothing/test_lanes.py"),
    Bug("as many threads on the device as there are", "smoothing/lanes.py", "range(LANES if self._streams else 0)", "range(9 * LANES if self._streams else 0)", "tests/smoothing/test_lanes.py"),
    Bug("a lane left before its work is done", "smoothing/lanes.py", "                stream.synchronize()", "                pass", "tests/smoothing/test_lanes.py"),
    Bug("every error taken for lack of memory", "smoothing/lanes.py", "if not out_of_memory(error):", "if False:", "tests/smoothing/test_lanes.py -k other_errors"),
    Bug("the batch search goes on below what failed", "smoothing/batch_size.py", "while size >= start and 2 * size", "while 2 * size", "tests/smoothing/test_batch_size.py"),
    Bug("the batch search forgets its limit", "smoothing/batch_size.py", "2 * size <= limit and", "2 * size <= 2 * limit and", "tests/smoothing/test_batch_size.py"),
    Bug("one time for all noise levels", "denoisers/diffusion.py", "        return found\n", "        return next(iter(self._conditions.values()))\n", "tests/smoothing/test_skipped_work.py"),
    Bug("constants that no gradient may pass", "networks/preprocessing.py", "with torch.inference_mode(False):", "if True:", "tests/smoothing/test_skipped_work.py"),
    Bug("orders that no gradient may pass", "classifiers/labels.py", "with torch.inference_mode(False):", "if True:", "tests/smoothing/test_skipped_work.py"),
    Bug("the batch size is looked for again", "engine/job.py", "batch is None and stored is None and", "batch is None and", "tests/engine/test_batch_search.py"),
    Bug("the batch size asked for is overruled", "engine/job.py", "if batch is None and stored is None and is_acc", "if stored is None and is_acc", "tests/engine/test_batch_search.py"),
    Bug("freed memory goes back to the kernel", "smoothing/network.py", "            keep_freed_memory()\n", "            pass\n", "tests/smoothing/test_allocator.py"),
    Bug("the user's settings of the allocator are overruled", "smoothing/allocator.py", 'or _user_decided(os.environ):', "or False:", "tests/smoothing/test_allocator.py"),
    Bug("precision is no part of the run", "engine/specify.py", "            dtype=smoothed.network.precision,\n", "", "tests/smoothing/test_precision.py"),
    Bug("a model's difference dropped from a table", "analysis/settings.py", "return bare if len({bare(run) for run in runs}) == len(whole) else short", "return bare", "tests/analysis -k said_once"),
    Bug("stopping: all of alpha at every look", "bounds/sequential/boundary.py", "_smallest_cut(law, next(allowed) - spent - lost)", "_smallest_cut(law, alpha + 0 * next(allowed))", f"{STOPPING} -k one_keeps"),
    Bug("stopping: what was spent is not subtracted", "bounds/sequential/boundary.py", "_smallest_cut(law, next(allowed) - spent - lost)", "_smallest_cut(law, next(allowed))", f"{STOPPING} -k one_keeps"),
    Bug("stopping: boundaries rely on giving up", "bounds/sequential/boundary.py", "law[1][: max(0, cut - law[0])]), look", "law[1][: max(0, cut - law[0])] * (law[0] + np.arange(min(len(law[1]), max(0, cut - law[0]))) > look * p - 0.5 * np.sqrt(look * p * (1 - p)))), look", f"{STOPPING} -k one_keeps"),
    Bug("stopping: boundaries rely on giving up, seen in cuts", "bounds/sequential/boundary.py", "law[1][: max(0, cut - law[0])]), look", "law[1][: max(0, cut - law[0])] * (law[0] + np.arange(min(len(law[1]), max(0, cut - law[0]))) > look * p - 0.5 * np.sqrt(look * p * (1 - p)))), look", SEQUENTIAL),
    Bug("stopping: a look is judged by the cut before it", "certificates/grouped_course.py", "cuts[self.look]:", "cuts[max(0, self.look - 1)]:", f"{STOPPING} -k one_keeps"),
    Bug("stopping: votes of other draws are taken", "certificates/course.py", "if need is None or tally.total != wanted:", "if need is None:", COURSES),
    Bug("stopping: one vote short of the cut is enough", "certificates/grouped_course.py", "and top >= design", "and top + 1 >= design", f"{STOPPING} -k one_keeps"),
    Bug("stopping: the cut itself is not enough", "certificates/grouped_course.py", "and top >= design", "and top > design", f"{COURSES} -k smallest_count"),
    Bug("stopping: cut one too low", "bounds/sequential/boundary.py", "return start + int(fitting[0]), float", "return start + int(fitting[0]) - 1, float", f"{STOPPING} -k one_keeps"),
    Bug("stopping: law carried on past the cut", "bounds/sequential/boundary.py", "law[1][: max(0, cut - law[0])]), look", "law[1][: max(0, cut - law[0] + 1)]), look", SEQUENTIAL),
    Bug("stopping: masses cut off are not counted", "bounds/sequential/boundary.py", "lost += dropped + 1e-20", "lost += 0.0", SEQUENTIAL),
    Bug("stopping: windows too narrow", "bounds/sequential/boundary.py", "int(10.5 * np.sqrt(n * p * q)) + 60", "int(3 * np.sqrt(n * p * q)) + 3", SEQUENTIAL),
    Bug("stopping: the last look spends more than alpha", "bounds/sequential/looks.py", "(1.0 - 1e-12)", "(1.0 + 1e-12)", SEQUENTIAL),
    Bug("stopping: no gate, the top class of the same draws", "certificates/grouped_course.py", "if passed and _lead_test(self.votes) <= self.design.gate_levels[self.look]:", "if passed:", f"{STOPPING} -k 'one_keeps or gate'"),
    Bug("stopping: the gate has its whole level at every look", "certificates/grouped.py", "return self._increments(self._naming)", "return (self._naming,) * len(self.looks)", f"{STOPPING} -k 'one_keeps or gate or prediction'"),
    Bug("stopping: a one-sided gate", "certificates/grouped_course.py", "if passed and _lead_test(self.votes) <=", "if passed and 0.5 * _lead_test(self.votes) <=", COURSES),
    Bug("stopping: no Bonferroni between gate and test", "certificates/grouped.py", "return math.nextafter(self.numbers.alpha * (1.0 - self.numbers.gate), 0.0)", "return self.numbers.alpha", COURSES),
    Bug("stopping: pair spends its level on both bounds", "certificates/grouped.py", "tuple(0.5 * share for share", "tuple(share for share", f"{STOPPING} -k pair"),
    Bug("stopping: pair has its whole level at every look", "certificates/grouped.py", "share in self._increments(self._testing)", "share in (self._testing,) * len(self.looks)", COURSES),
    Bug("stopping: a radius proved without the smaller ones", "certificates/grouped_course.py", "and top >= design.boundaries[certified].cuts[self.look]:", "and any(top >= b.cuts[self.look] for b in design.boundaries[certified:]):", f"{STOPPING} -k smaller_ones"),
    Bug("stopping: label-aware tests the top class", "certificates/grouped_course.py", "top = self.votes.count(self.named)", "top = self.votes.count(self.votes.top())", f"{STOPPING} -k label_aware"),
    Bug("stopping: label-aware without a label names and tests at alpha", "certificates/grouped.py", "        if label is None:\n            raise", "        if label == -7:\n            raise", COURSES),
    Bug("stopping: an answer that is not finite is no rival", "tallies/votes.py", "return max([self.nonfinite, ", "return max([0, ", f"{COURSES} -k not_finite"),
    Bug("stopping: noise error forgotten in the null", "certificates/grouped.py", "p = probability_for(radius, self.sigma, noise_error=self.noise_error)", "p = probability_for(radius, self.sigma)", COURSES),
    Bug("stopping: probability of a radius rounded down", "certificates/gaussian.py", "_z(0.5 + noise_error)\n    below = float(ndtr(-z * (1.0 + _QUANTILE_ERROR) - _QUANTILE_ERROR))", "_z(0.5 + noise_error)\n    below = float(ndtr(-z * (1.0 - 1e-9) + 1e-9))", COURSES),
    Bug("stopping: pilot draws used again for the second stage", "certificates/staged.py", "            self.pilot,\n            self.votes,\n", "            self.pilot,\n            self.votes + self.pilot,\n", f"{STOPPING} -k planned"),
    Bug("stopping: weights of the mixture add up to 24", "bounds/sequential/mixture.py", "np.exp(gains - top).mean()", "np.exp(gains - top).sum()", f"{STOPPING} -k adversary"),
    Bug("stopping: wealth wanted is 1 / (3 alpha)", "bounds/sequential/mixture.py", "wanted = -math.log(alpha)", "wanted = -math.log(3 * alpha)", f"{SEQUENTIAL} {STOPPING} -k 'sequence or adversary'"),
    Bug("stopping: wealth not rounded down", "bounds/sequential/mixture.py", " - _SLACK - size", "", SEQUENTIAL),
    Bug("stopping: anytime names the class of the estimation draws", "certificates/anytime.py", "label, design = self.pilot.top(), self.design", "label, design = self.votes.top(), self.design", COURSES),
    Bug("stopping: anytime pair spends alpha twice", "certificates/anytime.py", "share = split_alpha(design.alpha, 2)", "share = design.alpha", COURSES),
    Bug("stopping: draws asked for past the look", "certificates/grouped_course.py", "self.design.looks[self.look])", "self.design.looks[self.look] + 16)", COURSES),
    Bug("stopping: later draws repeat the first ones", "smoothing/streams.py", "segment.first * blocks", "0 * segment.first * blocks", "tests/validity/test_stopping_runs.py"),
    Bug("stopping: stored facts depend on the processor", "certificates/grouped.py", "_digits(b.level, 9)", "b.level", f"{COURSES} -k processor"),
    Bug("certified count: a false certificate forgotten", "bounds/population.py", "tail_upper(certified - middle, images - middle, alpha) <= delta", "tail_upper(certified - middle + 1, images - middle, alpha) <= delta", "tests/bounds/test_population.py"),
    Bug("certified count: all images are wrong ones", "bounds/population.py", "tail_upper(certified - middle, images - middle, alpha)", "tail_upper(certified - middle, images, alpha)", "tests/bounds/test_population.py"),
    Bug("population: false certificates forgotten", "bounds/population.py", "(share - alpha) / (1.0 - alpha) * (1.0 - 1e-15)", "share", "tests/bounds/test_population.py"),
    Bug("backends: the witness of what is not finite ignored", "backends/graph.py", "return torch.where(finite, answer, torch.nan)", "return answer", f"{BACKENDS} -k finite"),
    Bug("backends: sums and means in 8 bits too", "backends/openvino.py", "types=sorted(others)", "types=[]", f"{BACKENDS} -k finite"),
    Bug("backends: weights stored in half precision", "backends/openvino.py", "compress_to_fp16=False", "compress_to_fp16=True", f"{BACKENDS} -k alike"),
    Bug("backends: bfloat16 where float32 was asked for", "backends/openvino.py", '"bf16" if numbers == "bf16" or (', '"bf16" if True or (', f"{BACKENDS} -k alike"),
    Bug("backends: attention in 8 bits loses the image", "backends/onnxruntime.py", "nodes_to_exclude=attention", "nodes_to_exclude=[]", f"{BACKENDS} -k transformer"),
    Bug("backends: threads share one request", "backends/openvino.py", "threading.local()", 'type("Shared", (), {})()', f"{BACKENDS} -k many_threads"),
    Bug("backends: calibration images left out of the identity", "backends/convert.py", 'fixed["calibration"] = self.calibration.describe()', "pass", f"{BACKENDS} -k identity"),
    Bug("backends: a damaged stored model is used", "backends/store.py", "== listed[name] for name in files)", "!= '' for name in files)", f"{BACKENDS} -k damaged"),
    Bug("backends: names count what the process made before", "backends/openvino.py", 'node.set_friendly_name(f"{place}_{node.get_type_name()}")', "pass", f"{BACKENDS} -k damaged"),
    Bug("backends: a conversion is believed", "backends/convert.py", "self._compare(plain(images), expected)", "pass", f"{BACKENDS} -k no_graph"),
    Bug("backends: any sigma goes", "backends/parts.py", "if sigma != self.sigma:", "if False:", f"{BACKENDS} -k refuses_other"),
    Bug("backends: autocast reaches a converted part", "backends/eager.py", "torch.autocast(device, enabled=False)", "torch.autocast(device, enabled=torch.is_autocast_enabled(device))", f"{BACKENDS} -k autocast"),
    Bug("backends: half precision changes the original", "backends/eager.py", "_converted(copy.deepcopy(part), ", "_converted(part, ", f"{BACKENDS} -k leaves_the_original"),
    Bug("backends: resized pixels normalised twice", "backends/graph.py", "dataclasses.replace(whole, mean=(), std=())", "whole", f"{BACKENDS} -k transformer"),
    Bug("calibration: noise of the certificates", "smoothing/calibration.py", 'index, "calibration", k // distinct', 'index, "estimation", k // distinct', CALIBRATION),
    Bug("calibration: a slice has its own base classifier", "smoothing/calibration.py", 'while hasattr(whole, "dataset"):', "while False:", CALIBRATION),
    Bug("calibration: a classifier behind a denoiser sees noise", "smoothing/calibration.py", "return noisy if denoiser is None else", "return noisy if True else", CALIBRATION),
    Bug("tune: losses of votes are not added", "engine/tuning.py", "sum(1 - one.votes for one in pair)", "max(1 - one.votes for one in pair)", "tests/cli/test_tune.py -k fastest_pair"),
    # The engine and the run file under stopping rules.
    Bug("rules: a block goes where there is room", "engine/blocks.py", "slot = (block + self._positions[example]) % len(self._slots)", "slot = min(range(len(self._slots)), key=lambda k: len(self._slots[k]))", "tests/engine/test_blocks.py"),
    Bug("cluster: draws that came before their turn are called unasked", "runlog/standing.py", "return replace(grown, later=later, unasked=rows.draws)", "return replace(grown, unasked=rows.draws + sum(r.draws for r in later))", "tests/runlog/test_any_order.py"),
    Bug("cluster: draws that came before their turn are forgotten on resume", "engine/track.py", "list(standing.later))", "[])", "tests/runlog/test_any_order.py"),
    Bug("cluster: any stored draw is called certain", "certificates/staged.py", 'Need("estimation", 0, self.n))', 'Need("estimation", 0, 10**9))', "tests/runlog/test_any_order.py"),
    Bug("cluster: draws before their turn are counted into the need under way", "engine/track.py", "if row.stage == need.stage and need.first <= row.first < need.end", "if True", "tests/runlog/test_any_order.py"),
    Bug("rules: rows are joined across a look", "engine/execute.py", "same and not self.looks_at(end)", "same", "tests/engine/test_run.py -k stopping_rules"),
    Bug("rules: stored draws of a need are asked for again", "runlog/standing.py", "            start = row.first + row.draws\n", "            start = row.first\n", "tests/engine/test_blocks.py -k continued"),
    Bug("rules: a table is read at another alpha", "runlog/reading.py", '_READABLE = ("fixed", "anytime")', '_READABLE = ("fixed", "anytime", "table", "radius", "curve")', "tests/runlog/test_reading_rules.py"),
    Bug("rules: stored boundaries are not compared", "runlog/verify.py", "if not _same(stored.get(key), derived.get(key))", "if key not in derived", "tests/runlog/test_reading_rules.py"),
    Bug("rules: fixed numbers get another identity", "runlog/specification.py", "else 1 if self.rule.fixed else 2", "else 2", "tests/runlog/test_store.py -k identity"),
    Bug("betting: stakes added, not averaged", "bounds/bounded_mean.py", "np.exp(gains - top).mean()", "np.exp(gains - top).sum()", "tests/bounds/test_bounded_mean.py"),
    Bug("betting: bound on the other side of the crossing", "bounds/bounded_mean.py", "    return low\n", "    return high + 1e-4\n", "tests/bounds/test_bounded_mean.py"),
    Bug("empirical Bernstein at twice alpha", "bounds/bounded_mean.py", "math.log(2.0 / alpha)", "math.log(1.0 / alpha) / 4", "tests/bounds/test_bounded_mean.py"),
    # Encoders, heads and vision-language models.
    Bug("encoders: a normalisation forgotten", "encoders/pretrained.py", "prepared = self.preprocessing(images)", "prepared = images", f"{ENCODERS}/test_encoder_names.py -k normalisation"),
    Bug("encoders: scores taken for features", "networks/resnet.py", "(2, 3))\n        return means", "(2, 3))\n        return self.linear(means)", f"{ENCODERS}/test_encoder_names.py"),
    Bug("encoders: features of noise clipped", "encoders/pretrained.py", "self.preprocessing(images)", "self.preprocessing(images.clamp(0, 1))", f"{ENCODERS}/test_transformers_encoders.py -k clipped"),
    Bug("encoders: no gradient through the features", "encoders/pretrained.py", "checked(self.network(prepared), ", "checked(self.network(prepared.detach()), ", f"{ENCODERS}/test_encoder_names.py -k gradients"),
    Bug("encoders: the length may change between calls", "encoders/callable.py", "if shape is not None and", "if False and", f"{ENCODERS}/test_encoder_names.py -k change"),
    Bug("encoders: integers pass for features", "encoders/callable.py", "and output.is_floating_point() and", "and", f"{ENCODERS}/test_encoder_names.py -k no_features"),
    Bug("encoders: a module left in training mode", "encoders/callable.py", "            self.function.eval()\n", "            pass\n", f"{ENCODERS}/test_encoder_names.py -k evaluation"),
    Bug("encoders: the projection dropped", "encoders/transformers.py", 'return TwoTowers(vision, getattr(model, "visual_projection", None))', "return TwoTowers(vision, None)", f"{ENCODERS}/test_transformers_encoders.py -k 'librarys or library_on'"),
    Bug("encoders: the class that drops the projection", "encoders/transformers.py", "if named.endswith(_AS_NAMED) and", "if False and", f"{ENCODERS}/test_transformers_encoders.py -k 'projection'"),
    Bug("encoders: cls is the last token", "encoders/transformers.py", "return found[:, 0] if self.first", "return found[:, -1] if self.first", f"{ENCODERS}/test_transformers_encoders.py -k asked_for"),
    Bug("encoders: a random pooling layer accepted", "networks/transformers.py", "    if lacking:", "    if False:", f"{ENCODERS}/test_transformers_encoders.py -k pooling_layer"),
    Bug("encoders: an encoder of words accepted", "encoders/transformers.py", 'if not two and getattr(model, "main_input_name", "") != "pixel_values":', "if False:", f"{ENCODERS}/test_transformers_encoders.py -k encode_no_images"),
    Bug("encoders: prompts not normalised before their mean", "encoders/heads.py", '_unit(text(list(own)), f"a prompt of class {name!r}")', "text(list(own)).double().numpy()", f"{ENCODERS}/test_prompts.py -k templates"),
    Bug("encoders: examples not normalised before their mean", "encoders/heads.py", '_direction(_unit(examples.features(encoder, images, batch), f"an example of class {name!r}"))', "_direction(examples.features(encoder, images, batch).double().numpy())", f"{ENCODERS}/test_heads.py -k mean_of_unit"),
    Bug("encoders: prototypes not normalised", "encoders/heads.py", "    found: Rows = mean / length\n", "    found: Rows = mean\n", f"{ENCODERS}/test_heads.py"),
    Bug("encoders: templates in the place of classes", "encoders/prompts.py", "return {name: tuple(prompt.replace(_GAP, name) for prompt in prompts) for name in names}", "return {name: tuple(prompts[0].replace(_GAP, other) for other in names) for name in names}", f"{ENCODERS}/test_prompts.py -k templates"),
    Bug("encoders: the order of a mapping's keys", "encoders/prompts.py", "in ((name, prompts[name]) for name in classes or prompts)", "in prompts.items()", f"{ENCODERS}/test_prompts.py -k order"),
    Bug("encoders: SigLIP's prompts not filled up", "encoders/transformers.py", 'padded = str(model.config.model_type).startswith("siglip")', "padded = False", f"{ENCODERS}/test_prompts.py -k siglip"),
    Bug("encoders: the end of long prompts cut off", "encoders/text.py", "truncation=False", "truncation=True", f"{ENCODERS}/test_prompts.py -k too_long"),
    Bug("encoders: an empty tokenizer accepted", "encoders/text.py", "if not rows / 2 < words <= rows:", "if False:", f"{ENCODERS}/test_prompts.py -k without_its_tokenizer"),
    Bug("encoders: the same examples for every seed", "encoders/examples.py", "key = [seed % 2**64,", "key = [0,", f"{ENCODERS}/test_heads.py -k seed"),
    Bug("encoders: an example twice", "encoders/examples.py", "stream.permutation(places)[:wanted]", "stream.choice(places, wanted)", f"{ENCODERS}/test_heads.py"),
    Bug("encoders: grey levels divided by 255 whatever they are", "encoders/examples.py", "np.float32(levels or 255)", "np.float32(255)", f"{ENCODERS}/test_heads.py -k grey_levels"),
    Bug("encoders: a class without enough images", "encoders/examples.py", "if len(places) < max(wanted, 1):", "if not len(places):", f"{ENCODERS}/test_heads.py -k 'no_head or folder'"),
    Bug("encoders: a changed head accepted", "encoders/heads.py", 'if found.sha256 != config.get("sha256"):', "if False:", f"{ENCODERS}/test_heads.py -k changed"),
    Bug("encoders: the wrong layer of a vision tower", "encoders/llava.py", "states[layer][:, start:] for layer", "states[layer - 1][:, start:] for layer", f"{ENCODERS}/test_llava.py"),
    Bug("encoders: the class token kept", "encoders/llava.py", "self.start = int(without_first)", "self.start = 0", f"{ENCODERS}/test_llava.py"),
    Bug("encoders: the last token dropped in place of the first", "encoders/llava.py", "states[layer][:, start:]", "states[layer][:, : states[layer].shape[1] - start]", f"{ENCODERS}/test_llava.py"),
    Bug("encoders: layers added, not put side by side", "encoders/llava.py", "return torch.cat([states[layer][:, start:] for layer in layers], dim=-1)", "return sum(states[layer][:, start:] for layer in layers)", f"{ENCODERS}/test_llava.py"),
    Bug("encoders: pictures in tiles accepted", "encoders/llava.py", 'hasattr(config, "vision_feature_layer") and not tiles', 'hasattr(config, "vision_feature_layer")', f"{ENCODERS}/test_llava.py -k another_way"),
    Bug("answers: the next word's likelihood", "encoders/answers.py", "self.kept = length - first + 1", "self.kept = length - first", f"{ENCODERS}/test_answers.py"),
    Bug("answers: likelihoods not normalised", "encoders/answers.py", ".float().log_softmax(dim=-1)", ".float()", f"{ENCODERS}/test_answers.py"),
    Bug("answers: only the first word counts", "encoders/answers.py", "range(len(tokens)), tokens].sum(dim=1)", "range(len(tokens)), tokens][:, 0]", f"{ENCODERS}/test_answers.py"),
    Bug("answers: pictures exchanged", "encoders/answers.py", "whole[:, :, self.places] = seen[:, None]", "whole[:, :, self.places] = seen.flip(0)[:, None]", f"{ENCODERS}/test_answers.py"),
    Bug("answers: one begins another", "encoders/answers.py", "if answer is not longer and other", "if False and other", f"{ENCODERS}/test_answers.py -k choice"),
    Bug("vlm: the length of the mean passed on", "smoothing/vlm.py", "self.norm * mean / length", "self.norm * mean", VLM),
    Bug("vlm: the picture is still looked at", "smoothing/vlm.py", "return (given.to(seen).repeat", "return (0.5 * seen + 0.5 * given.to(seen).repeat", VLM),
    Bug("vlm: the model stays changed", "smoothing/vlm.py", "            handle.remove()\n", "            pass\n", VLM),
    Bug("vlm: pictures of a batch exchanged", "smoothing/vlm.py", "repeat_interleave(len(seen) // len(given), dim=0)", "repeat_interleave(len(seen) // len(given), dim=0).flip(0)", VLM),
    Bug("vlm: any shape is served", "smoothing/vlm.py", "if tuple(given.shape[1:]) != self.tower.shape or not", "if not", VLM),
    Bug("vlm: another served mean certified", "smoothing/vlm.py", '"served": n or self.n}', '"served": 10_000}', VLM),
    Bug("vlm: tokens in another order", "smoothing/vlm.py", "return served.reshape(*mean.shape[:-1], *self.tower.shape)", "return served.reshape(*mean.shape[:-1], *self.tower.shape[::-1]).swapaxes(-1, -2)", VLM),
    Bug("booster: any sigma goes", "encoders/mapper.py", "if not low * (1 - _NEAR) <= sigma <= high * (1 + _NEAR):", "if sigma != sigma:", f"{MAPPER} -k trained_for"),
    Bug("booster: a batch shares one sigma", "encoders/mapper.py", "_waves(sigmas / self.sigmas[1])", "_waves(sigmas[:1] / self.sigmas[1])", f"{MAPPER} -k sigmas_of_a_batch"),
    Bug("booster: attention reaches batch mates", "encoders/mapper.py", "self.heads, -1)).transpose(1, 2) for", "self.heads, -1)).transpose(0, 2) for", f"{MAPPER} -k 'batch_mates or shape_and_type'"),
    Bug("booster: the norm of a mapper is over the batch", "encoders/mapper.py", "self.enter((tokens.to(self.scale.dtype) - self.centre) / self.scale)", "self.enter((tokens.to(self.scale.dtype) - tokens.mean(0).to(self.scale.dtype)) / self.scale)", f"{MAPPER} -k batch_mates"),
    Bug("booster: a mapper's card is not read", "encoders/mapper.py", "        read_card(root)\n", "        pass\n", f"{MAPPER} -k spoiled"),
    Bug("booster: a mapper of NaN is loaded", "encoders/mapper.py", "if not torch.isfinite(tensor).all()]", "if False]", f"{MAPPER} -k spoiled"),
    Bug("booster: l_rb of tokens one by one", "training/booster_losses.py", "noisy.flatten(1), clean.flatten(1), dim=1", "noisy, clean, dim=-1", f"{BOOSTER} -k one_row"),
    Bug("booster: l_stats without the spread", "training/booster_losses.py", " + (spread - wanted_spread).square()", "", f"{BOOSTER} -k 'by_hand or collapse_back'"),
    Bug("booster: l_id in the encoder's units", "training/booster_losses.py", "residual.square().sum() /", "residual.square().mean() /", f"{BOOSTER} -k by_hand"),
    Bug("booster: l_diff in pixels", "training/booster_losses.py", "/ sigma**2", "/ sigma", f"{BOOSTER} -k predicted_noise"),
    Bug("booster: l_id is forgotten", "training/booster.py", "total = self._d * losses.identity(zero, clean)", "total = 0 * losses.identity(zero, clean)", f"{BOOSTER} -k hardly_moves"),
    Bug("booster: the mapper is trained behind the old purifier", "training/booster.py", "        denoiser = tune_purifier(", "        _ = tune_purifier(", f"{BOOSTER} -k comes_first"),
    Bug("booster: the caller's denoiser is trained", "training/purifier.py", "mine = copy.deepcopy(denoiser)", "mine = denoiser", f"{BOOSTER} -k stay_as_they_are"),
    Bug("booster: every step sees the same noise", "training/booster_batches.py", "self._purpose, step)", "self._purpose, 0)", f"{BOOSTER} -k 'pure_function or cover_the_range'"),
    Bug("booster: noise levels are not spread over the range", "training/booster_batches.py", "(torch.arange(LEVELS) + torch", "(0 * torch.arange(LEVELS) + torch", f"{BOOSTER} -k cover_the_range"),
    Bug("booster: an interrupted mapper begins anew", "training/booster.py", "precision=precision, savepoint=savepoint,", "precision=precision,", f"{BOOSTER} -k interrupted"),
    Bug("booster: a purifier of other settings is taken", "training/purifier.py", "        _same(out, settings)\n", "", f"{BOOSTER} -k another_training"),
    Bug("booster: the purifier learns pixels only", "training/purifier.py", "here = here + self._a * losses.robustness(features, clean)", "here = here + 0 * features.sum()", f"{BOOSTER} -k serves_it_better"),
    Bug("booster: figures against the mapped clean feature", "training/booster_figures.py", "(means * clean.features).sum(axis=1)", "(means * unit_rows(means.astype(np.float32))).sum(axis=1)", f"{BOOSTER} -k 'known_feature_map or steadier'"),
    Bug("features: the quadrature's error forgotten", "certificates/tilted.py", "out[0] * (1.0 + _ROUNDING) + _excess(", "out[0] * (1.0 + _ROUNDING) + 0.0 * _excess(", "tests/certificates/test_tilted.py"),
    Bug("features: a branch point inside the strip", "certificates/tilted.py", "    narrow = np.minimum(_STRIP, 0.8 * np.arctan2(height, np.abs(branch - near)))", "    narrow = np.full_like(height, _STRIP)", "tests/certificates"),
    Bug("features: the published bound below 0", "certificates/angles.py", "np.clip(np.nan_to_num(low, nan=0.0) - 1e-13, 0.0, 1.0)", "np.clip(np.nan_to_num(low, nan=0.0) - 1e-13, -1.0, 1.0)", "tests/certificates/test_cosine.py"),
    Bug("features: exact angle one per cent too small", "certificates/angles.py", "(1.0 + EPS)) - at.w", "(1.0 + EPS)) - 1.01 * at.w", "tests/certificates/test_cosine.py -k 'attains or violates or worst'"),
    Bug("features: covariance bound without its exponential", "certificates/angles.py", "np.sqrt(spread * np.expm1(r * r))", "np.sqrt(spread * r * r)", "tests/certificates/test_cosine.py -k 'violates or covariance'"),
    Bug("features: spread capped too low", "certificates/angles.py", "np.minimum(lam, 1.0 - np.clip(m, 0.0, 1.0) ** 2)", "np.minimum(lam, (1.0 - np.clip(m, 0.0, 1.0)) ** 2)", "tests/certificates/test_cosine.py -k violates"),
    Bug("features: the drawn noise is the exact one", "certificates/cosine.py", "angle = angle + angles.turn(np.asarray(2.0 * noise_error), norm)", "angle = angle + angles.turn(np.asarray(0.0), norm)", "tests/certificates/test_cosine.py -k drawn"),
    Bug("features: a ratio one step too far", "certificates/lattice.py", "np.asarray(low / STEPS, dtype=np.float64)", "np.asarray((low + 1) / STEPS, dtype=np.float64)", "tests/certificates/test_cosine.py -k inverses"),
    Bug("features: the other reference's angle squared", "certificates/angles.py", "np.maximum(np.sin(w) - EPS, 0.0)", "np.maximum(np.cos(w) - EPS, 0.0)", "tests/certificates/test_cosine.py -k 'reference or violates'"),
    Bug("features: served mean without its own spread", "certificates/served.py", "return np.asarray(mean + np.minimum(plain, sharp) + _EPS)", "return np.asarray(np.minimum(plain, sharp) + _EPS)", "tests/certificates/test_feature.py"),
    Bug("features: served spread does not move", "certificates/served.py", "ndtr(ndtri(share) + r)", "ndtr(ndtri(share))", "tests/certificates/test_feature.py"),
    Bug("features: served by the ideal bound", "certificates/served.py", "        (deviation(1.0 - near**2, spread, n, alpha), near),\n", "", "tests/certificates/test_feature.py"),
    Bug("features: radii in ratios", "certificates/feature.py", "np.asarray(radius, dtype=np.float64) / self.sigma", "np.asarray(radius, dtype=np.float64) * self.sigma", "tests/certificates/test_feature.py"),
    Bug("features: the paper's bound on the drawn noise", "certificates/feature.py", "return bounds.turned(value, (off, value), (off, value))", "return value", "tests/certificates/test_feature.py -k lowers"),
    Bug("covariance: Bentkus without e", "bounds/covariance.py", "alpha / math.e * (1.0 - _EPS)", "min(0.9, 2 * alpha)", "tests/bounds/test_covariance.py"),
    Bug("covariance: part of a success cut off", "bounds/covariance.py", "whole = min(n, math.ceil(n * mean * (1.0 + _EPS)))", "whole = min(n, math.floor(0.8 * n * mean))", "tests/bounds/test_covariance.py"),
    Bug("covariance: Chernoff at the root of alpha", "bounds/covariance.py", "wanted = -math.log(alpha) / n", "wanted = -math.log(alpha) / (2 * n)", "tests/bounds/test_covariance.py"),
    Bug("covariance: the sample's own eigenvalue", "bounds/covariance.py", "bound = most * mean_upper(min(1.0, top / most), n, alpha)", "bound = top", "tests/bounds/test_covariance.py"),
    Bug("covariance: range of a centred feature forgotten", "bounds/covariance.py", "_checked(second), 1.0 + centre_norm, 0.0", "_checked(second), 1.0, 0.0", "tests/bounds/test_covariance.py"),
    Bug("covariance: draws left out are forgotten", "bounds/covariance.py", "+ rounding) ** 2 + outside)", "+ rounding) ** 2)", "tests/bounds/test_covariance.py"),
    Bug("covariance: rounding forgotten", "bounds/covariance.py", "math.sqrt(bound * (1.0 + _EPS)) + rounding) ** 2", "math.sqrt(bound * (1.0 + _EPS))) ** 2", "tests/bounds/test_covariance.py"),
    Bug("covariance: pairs of draws bounded by b", "bounds/covariance.py", "most = (1.0 + centre_norm) ** 4", "most = (1.0 + centre_norm) ** 2", "tests/bounds/test_covariance.py"),
    Bug("betting: a histogram without its counts", "bounds/bounded_mean.py", "else each @ weights[start : start + _BLOCK]", "else each.sum(axis=1)", "tests/bounds"),
    Bug("dual: the shift the wrong way", "certificates/testfunction.py", "for x in (edge, edge - r[:, None])", "for x in (edge, edge + r[:, None])", "tests/certificates/test_margin.py"),
    Bug("dual: a straight slack one per cent short", "certificates/testfunction.py", "out[near] = -np.minimum(1.0, integral", "out[near] = -0.99 * np.minimum(1.0, integral", "tests/certificates/test_margin.py"),
    Bug("dual: functions that are not concave", "certificates/testfunction.py", "sound = bool((np.diff(slopes) <= _STRAIGHT * np.abs(slopes).max()).all())", "sound = True", "tests/certificates/test_margin.py -k bad_input"),
    Bug("dual: one rival stands for all", "certificates/margin.py", "if found is None or not (found > 0.0 and q.certifies(low, found)):", "if found is None:", "tests/certificates/test_margin.py -k rivals"),
    Bug("dual: the drawn noise is the exact one", "certificates/margin.py", "float(low) - noise_error * (8.0", "float(low) - 0.0 * (8.0", "tests/certificates/test_margin.py -k rivals"),
    Bug("margin: a score taken for a probability", "certificates/margin.py", "np.clip(0.5 * (1.0 + lowers), 0.0", "np.clip(0.5 * (1.2 + lowers), 0.0", "tests/certificates/test_margin.py"),
    Bug("dual: the pilot foresees what no bet can reach", "certificates/pilot.py", "np.where(usual <= spread**2 / height, usual, capped)", "usual", "tests/certificates/test_margin.py -k promise"),
    Bug("attack: one level beyond the ball", "attacks/ball.py", "return math.floor((Fraction(radius) * levels) ** 2)", "return math.ceil((Fraction(radius) * levels) ** 2)", "tests/attacks/test_ball.py"),
    Bug("attack: levels leave the box", "attacks/ball.py", "return np.clip(np.rint(scale * wanted), low, high)", "return np.rint(scale * wanted)", "tests/attacks/test_ball.py"),
    Bug("attack: plain rounding to the grid", "attacks/ball.py", "taken = _filled(steps(short), wanted, low, high, budget)", "taken = steps(short)", "tests/attacks/test_ball.py"),
    Bug("attack: a distance rounded up out of the certified ball", "attacks/ball.py", "return found, min(radius, math.sqrt(square) / levels * (1.0 + 1e-12))", "return found, math.sqrt(square) / levels * (1.0 + 1e-12)", "tests/attacks"),
    Bug("attack: the projection forgets the box", "attacks/ball.py", "found: Tensor = (self.centre + moved * each(scale, moved)).clamp(0, 1)", "found: Tensor = self.centre + moved * each(scale, moved)", "tests/attacks/test_ball.py"),
    Bug("attack: every step sees the first step's noise", "attacks/expectation.py", "first = step * self.search.eot if self.search.resampled else 0", "first = 0", "tests/attacks/test_search.py"),
    Bug("attack: small batches pull another gradient", "attacks/expectation.py", "pull.repeat_interleave(self.search.eot, dim=0)", "pull.repeat(self.search.eot, 1)", "tests/attacks/test_search.py -k small_batches"),
    Bug("attack: a denoiser's draws named by their batch", "attacks/expectation.py", "some = names[part]", "some = names[: len(noisy)]", "tests/attacks/test_search.py -k small_batches"),
    Bug("attack: black boxes accepted", "attacks/expectation.py", "    if found[0] is None:\n", "    if found[0] is None:\n        return torch.zeros_like(images)\n    if found[0] is None:\n", "tests/attacks/test_search.py -k black"),
    Bug("attack: towards the feature, not away", "attacks/aims.py", "return lambda mean: -cosines(mean, reference)", "return lambda mean: cosines(mean, reference)", "tests/attacks/test_search.py -k attained"),
    Bug("attack: the label is its own rival", "attacks/aims.py", "values.masked_fill(own, -torch.inf)", "values", "tests/attacks"),
    Bug("attack: every start on the same side", "attacks/perturb.py", "begin = ball.project(2.0 * ball.centre - point)", "begin = ball.project(point)", "tests/attacks/test_search.py -k attained"),
    Bug("attack: the last start is kept, not the best", "attacks/perturb.py", "wins = values > best[2]", "wins = values > -np.inf", "tests/attacks/test_search.py -k restarts"),
    Bug("attack: apgd never halves its step", "attacks/search.py", "length = torch.where(halve, 0.5 * length, length)", "length = length.clone()", "tests/attacks/test_search.py"),
    Bug("attack: pgd's steps never shorten", "attacks/search.py", "left = (search.steps - step) / search.steps", "left = 1.0", "tests/attacks/test_search.py"),
    Bug("judge: draws of the attack judge it", "attacks/judge.py", 'segment = Segment(example, "judge", start', 'segment = Segment(example, "attack", start', "tests/attacks/test_campaign.py -k judges"),
    Bug("judge: both images judged with one noise", "attacks/evidence.py", 'judge.add(draw("judge_clean", pilot + first, count), draw("judge", pilot + first, count))', 'judge.add(draw("judge", pilot + first, count), draw("judge", pilot + first, count))', "tests/attacks"),
    Bug("judge: pilot draws bear the bound", "attacks/evidence.py", 'draw("judge", pilot + first, count)', 'draw("judge", first, count)', "tests/attacks/test_evidence.py -k more_draws"),
    Bug("judge: the error of the clean direction forgotten", "attacks/evidence.py", 'turned = math.atan2(max(self._upper("b", each), 0.0), a)', "turned = 0.0", "tests/attacks/test_evidence.py -k level"),
    Bug("judge: the error of the attacked direction forgotten", "attacks/evidence.py", "turned_attacked = math.atan2(min(self._lower(\"b'\", each), 0.0), a_attacked)", "turned_attacked = 0.0", "tests/attacks/test_evidence.py -k level"),
    Bug("judge: what lies off the plane forgotten", "attacks/evidence.py", 'max(self._upper("off", each), 0.0) / (a * a_attacked)', "0.0", "tests/attacks/test_evidence.py -k missed"),
    Bug("judge: the noise's error forgotten", "attacks/evidence.py", "1.0 - 2.0 * betting_lower(values, alpha) + 4.0 * self.noise_error + _ROUNDING", "1.0 - 2.0 * betting_lower(values, alpha) + _ROUNDING", "tests/attacks/test_evidence.py"),
    Bug("judge: all rivals looked at for the price of one", "attacks/evidence.py", "looks * max(1, classes - 1) * tail", "looks * tail", "tests/attacks/test_evidence.py"),
    Bug("judge: a broken certificate overlooked", "attacks/record.py", 'found = ["cosine"] if self.upper_sure < self.certified else []', 'found = ["cosine"] if self.upper_sure < 0 else []', "tests/attacks/test_campaign.py"),
    Bug("judge: accused beyond the radius", "attacks/record.py", "return self.predicted is not None and self.distance <= self.certified", "return self.predicted is not None", "tests/attacks/test_campaign.py"),
    Bug("judge: a pair bound taken for a probability", "attacks/campaign.py", "says = covered and claim.alone", "says = covered", "tests/attacks/test_campaign.py"),
    Bug("attack: a broken certificate ends with status 0", "cli/attack.py", "        raise _broken(broken)", "        _broken(broken)", "tests/cli/test_attack.py -k loudly"),
    Bug("encode: values are moved up to the grid", "certificates/channels.py", "above = np.floor(shares * PART)", "above = np.ceil(shares * PART)", "tests/certificates/test_channels.py"),
    Bug("encode: a fine grid without its coarse ends", "certificates/channels.py", "np.linspace(lowest, low, _BELOW, endpoint=False) if low > lowest", "np.linspace(low - 1e-3, low, _BELOW, endpoint=False) if low > lowest", "tests/certificates/test_channels.py tests/certificates/test_encoding.py"),
    Bug("encode: what the sketch keeps is not paid for", "certificates/encoding.py", "np.array([[seen / kept]])", "np.array([[seen]])", "tests/certificates/test_encoding.py -k trace"),
    Bug("encode: broken draws answer with class 0", "certificates/encoding_plan.py", "return np.where((features == 0.0).all(axis=1), -1, answers)", "return answers", "tests/certificates/test_encoding.py"),
    Bug("encode: the clean feature goes through denoiser and mapper", "smoothing/features.py", "return unit_rows(_rows_of(self.encoder(images), len(clean)).float().cpu().numpy())", "return unit_rows(self.differentiable(images).cpu().numpy())", "tests/smoothing/test_encoder.py -k clean_feature"),
    Bug("encode: a mapper at any sigma", "smoothing/features.py", "if not low <= sigma <= high:", "if False:", "tests/smoothing/test_encoder.py -k mapper"),
    Bug("encode: features that are not finite keep their direction", "smoothing/features.py", "rows[~finite] = 0.0", "rows = np.nan_to_num(rows)", "tests/smoothing/test_encoder.py -k units"),
    Bug("encode: a head's rows in its own order", "smoothing/encoder.py", "rows[[own.index(name) for name in wanted]]", "rows", "tests/smoothing/test_encoder.py -k numbers_of_the_data"),
    Bug("encode: zero features pass the check", "smoothing/encoder.py", "            if broken:", "            if False:", "tests/smoothing/test_encoder.py -k refused"),
    Bug("encode: sums of other layouts add up", "tallies/scores.py", "or self.layout != other.layout", "", "tests/test_scores.py"),
    Bug("encode: pilot pieces in the order they came", "tallies/features.py", "pieces = sorted((*self.pieces, *other.pieces), key=lambda piece: piece[0])", "pieces = [*self.pieces, *other.pieces]", "tests/test_scores.py"),
    Bug("encode: any layout is read", "certificates/encoding.py", "        if not fits:", "        if False:", "tests/certificates/test_encoding.py -k layout"),
    Bug("encode: a head for other features", "certificates/encoding.py", "self.prototypes.shape[1] != dimension", "self.prototypes.shape[1] < 0", "tests/engine/test_encode.py -k head"),
    Bug("encode: the served draws are those of the certificate", "smoothing/encoder.py", 'self._pieces(prepared, name, "prediction", 0, count', 'self._pieces(prepared, name, "estimation", 0, count', "tests/smoothing/test_encoder.py -k never_share"),
    Bug("encode: a decision nobody counted is read", "runlog/reading.py", "if decision is not None and decision not in known:", "if False:", "tests/engine/test_encode.py -k decision"),
    Bug("shard: every sixteenth image, all beginning at one slot", "runlog/shard.py", "rank = start + (self.number - 1 - number) % self.count", "rank = start + self.number - 1", "tests/engine/test_shards.py -k full"),
    Bug("shard: the last image belongs to several", "runlog/shard.py", "            if rank < total:\n                yield rank\n", "            yield min(rank, total - 1)\n", "tests/runlog/test_shard.py"),
    Bug("shard: images in the order of the data, which no file knows", "runlog/shard.py", "order = sorted(range(len(examples)), key=examples.__getitem__)", "order = range(len(examples))", "tests/runlog/test_shard.py"),
    Bug("shard: planned draws move up to the rows that are free", "engine/plan.py", "filled = place(parts, segment, row, filled)", "filled = place(parts, segment, filled, filled)", "tests/engine/test_shards.py -k planned"),
    Bug("shard: other images' draws count too", "engine/plan.py", "if self._holds(position)]", "]", "tests/engine/test_shards.py -k planned"),
    Bug("shard: slots by the position among its own images", "engine/blocks.py", "self._positions[example] = position", "self._positions[example] = self._finished[:position].count(0)", "tests/engine/test_shards.py -k under_a_rule"),
    Bug("shard: another one is continued", "runlog/shard.py", "if self == asked:", "if asked:", "tests/runlog/test_shard.py tests/engine/test_shards.py -k 'continued or resumes'"),
    Bug("shard: draws of other images verify", "runlog/verify.py", "Roster.read(run).labels_of(run.shard)", "Roster.read(run).labels", "tests/runlog/test_merging.py -k another_shard"),
    Bug("shard: a table does not say that it is one", "analysis/settings.py", '("shard", lambda run: run.shard or "none")', '("shard", lambda run: "none")', "tests/cli/test_merge.py -k says_what"),
    Bug("merge: runs of different specifications", "runlog/merging.py", "if first.specification.identity() != other.specification.identity():", "if False:", "tests/runlog/test_merging.py -k specifications"),
    Bug("merge: row hashes not looked at", "runlog/merging.py", "run.checked_rows()", "(row for row, _ in run.tallies())", "tests/runlog/test_merging.py -k edited"),
    Bug("merge: a shard that is there twice", "runlog/merging.py", "if part.shard == after.shard:", "if False:", "tests/runlog/test_merging.py -k twice"),
    Bug("merge: a missing shard", "runlog/merging.py", "if not missing:", "if missing or not missing:", "tests/runlog/test_merging.py -k missing"),
    Bug("merge: images that are not finished", "runlog/merging.py", "    if unfinished:\n", "    if False:\n", "tests/runlog/test_merging.py -k finished"),
    Bug("merge: all rows in memory", "runlog/merging.py", "rows = _rows(parts, specification, images)", "rows = list(_rows(parts, specification, images))", "tests/runlog/test_merging.py -k memory"),
    Bug("merge: an existing run is replaced", "runlog/merging.py", "        if out.exists():\n", "        if False:\n", "tests/runlog/test_merging.py -k overwritten"),
    Bug("continue: a note is stored before its draws", "engine/execute.py", "writer.append(self._pending.joined(), notes)", "writer.append([], notes)\n        writer.append(self._pending.joined())", f"{CONTINUE} -k before_its_draws"),
    Bug("continue: notes outlive an append that failed", "runlog/store.py", "with sqlite_errors(self.directory), self._connection:\n            self._connection.executemany(INSERT, values)\n            self._note(finished)", "with sqlite_errors(self.directory), self._connection:\n            self._note(finished)\n            self._connection.commit()\n            self._connection.executemany(INSERT, values)", "tests/runlog/test_store.py -k all_or_nothing"),
    Bug("continue: a note of rows that were not counted", "engine/execute.py", "notes = () if self._specification.rule.open_ended else self._finished", "notes = () if self._specification.rule.open_ended else self._finished + self._tracker.newly_finished()", f"{CONTINUE} -k cannot_be_counted"),
    Bug("continue: results believe the notes", "runlog/reading.py", "if verdict is not None and example in labels:", "if example in labels and (verdict or example in (reader.finished() or ())):", f"{CONTINUE} -k forged_note"),
    Bug("continue: results read rows unchecked", "runlog/reading.py", "replayed(design, reader.checked_tallies(), labels)", "replayed(design, (row for row, _ in reader.tallies()), labels)", f"{CONTINUE} -k left_alone"),
    Bug("continue: verify passes over forged notes", "runlog/verify.py", "unproved = set(run.finished() or ())", "unproved = set[int]()", f"{CONTINUE} -k forged_note"),
    Bug("continue: a forged note loses an image silently", "engine/job.py", "            check_notes(writer, found)\n", "", f"{CONTINUE} -k forged_note"),
    Bug("continue: an image is not compared when it is used", "engine/evaluate.py", "if self.rows and not same_image(", "if False and not same_image(", f"{CONTINUE} -k changed_image"),
    Bug("continue: no image is compared before", "engine/specify.py", "same = all(", "same = True or all(", f"{CONTINUE} -k wrong_data_set"),
    Bug("continue: any order is taken for ascending", "engine/specify.py", "if not run.ordered or len(data)", "if len(data)", f"{CONTINUE} -k out_of_order"),
    Bug("continue: open-ended images are noted", "engine/execute.py", "() if self._specification.rule.open_ended else self._finished", "self._finished", f"{CONTINUE} -k exactly"),
    Bug("continue: an image after a finished one is not read", "runlog/finished.py", "start = ranked.find(0, last + 1)", "start = ranked.find(0, last + 3)", "tests/runlog/test_roster.py -k stretches"),
    Bug("continue: the first batch of an unfinished image is left out", "engine/plan.py", "number = max(number, begun * self.draws_each // self.batch)", "number = max(number, begun * self.draws_each // self.batch + 1)", "tests/engine/test_plan.py -k missing"),
    Bug("continue: finished images are begun again", "engine/job.py", "stored, batch, most, finished), tracker", "stored, batch, most), tracker", f"{CONTINUE} -k exactly"),
)  # fmt: skip


def notices(bug: Bug) -> str:
    """``red`` if the named tests fail on the spoiled package, else what happened instead."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("src", "tests", "examples", "pyproject.toml", "README.md"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
        target = place / "src/smoothcert" / bug.file
        text = target.read_text(encoding="utf-8")
        if text.count(bug.line) != 1:
            return f"the line to spoil is there {text.count(bug.line)} times"
        target.write_text(text.replace(bug.line, bug.spoiled), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = f"{sys.executable} -m pytest -q -x -n 0 -p no:cacheprovider {bug.tests}"
        done = subprocess.run(
            command, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        summary = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode == 1 and summary and not summary[0].startswith("ERROR"):
            return "red: " + summary[0].split("::")[-1].split(" - ")[0]
        return f"NOT NOTICED (pytest status {done.returncode}) {done.stdout[-300:] if done.returncode > 1 else ''}"


def main() -> int:
    wanted = [word.lower() for word in sys.argv[1:]]
    failed = 0
    for bug in BUGS:
        if all(word in bug.name.lower() for word in wanted):
            outcome = notices(bug)
            failed += not outcome.startswith("red")
            print(f"{bug.name:<52} {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
