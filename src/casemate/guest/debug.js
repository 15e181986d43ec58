// What is recorded of a JavaScript program, in an isolate or in Node, for whoever has asked: bounded lists, and counts of
// what was more.
'use strict';

const LINES_MAX = 1000;
const LINE_MAX_CHARS = 4096;
const CONSOLE_MAX_CHARS = 262144;
const NAME_MAX_CHARS = 200;
const PROFILE_MAX = 200;
const STREAMS = { 1: 'stdout', 2: 'stderr' };
const LEVELS = { 1: 'log', 2: 'error' };
const US_PER_MS = 1000;

// The lines of stdout and stderr in their order.
class Console {
  constructor(now = () => performance.now()) {
    this.now = now;
    this.began = now();
    this.lines = [];
    this.room = CONSOLE_MAX_CHARS;
    this.dropped = 0;
    this.partial = { 1: '', 2: '' };
  }

  note(fd, text, level) {
    const pieces = (this.partial[fd] + text).split('\n');
    this.partial[fd] = pieces.pop().slice(0, LINE_MAX_CHARS);
    for (const piece of pieces) this.add(fd, piece.slice(0, LINE_MAX_CHARS), level);
  }

  add(fd, text, level = LEVELS[fd]) {
    if (this.lines.length >= LINES_MAX || text.length > this.room) {
      this.dropped += 1;
      return;
    }
    this.room -= text.length;
    const at = Math.max(0, Math.round((this.now() - this.began) * US_PER_MS));
    this.lines.push({ stream: STREAMS[fd], level: String(level).slice(0, NAME_MAX_CHARS), text: text.toWellFormed?.() ?? text, at_us: at });
  }

  tell() {
    for (const fd of [1, 2]) if (this.partial[fd]) this.add(fd, this.partial[fd]);
    this.partial = { 1: '', 2: '' };
    return { console: this.lines, console_dropped: this.dropped };
  }
}

// Functions of one file. `coverage` says exactly how often each was called, `nodes` is a tree of samples with the time of
// each in microseconds, if there is one; `lineAt` finds the line of an offset.
function profileOf({ file, coverage, nodes, lineAt }) {
  const found = new Map();
  for (const { functionName, ranges } of coverage) {
    const [{ startOffset, count }] = ranges;
    if (count > 0) entryOf(found, file, functionName, lineAt(startOffset)).calls += count;
  }
  addTimes(found, nodes ?? [], file);
  const entries = [...found.values()].sort((one, other) => other.own_us - one.own_us || other.calls - one.calls);
  const time = (us) => (nodes === undefined ? null : Math.round(us));
  const kept = entries.slice(0, PROFILE_MAX).map((entry) => ({
    ...entry,
    own_us: time(entry.own_us),
    total_us: time(entry.total_us),
  }));
  return { profile: kept, profile_dropped: entries.length - kept.length };
}

function entryOf(found, file, name, line) {
  const key = `${name}:${line}`;
  if (!found.has(key)) {
    const shown = name.slice(0, NAME_MAX_CHARS) || '(anonymous)';
    found.set(key, { function: shown, file: file.slice(-NAME_MAX_CHARS), line, calls: 0, own_us: 0, total_us: 0 });
  }
  return found.get(key);
}

// A function's own time is that of the samples in it, its whole time that of the samples at or below it; one that is
// below itself counts once.
function addTimes(found, nodes, file) {
  const waiting = nodes.filter((node) => node.isRoot).map((node) => [node, []]);
  const byId = new Map(nodes.map((node) => [node.id, node]));
  while (waiting.length > 0) {
    const [node, above] = waiting.pop();
    const entry = node.file === file ? found.get(`${node.name}:${node.line}`) : undefined;
    const path = entry === undefined || above.includes(entry) ? above : [...above, entry];
    if (entry !== undefined) entry.own_us += node.own_us;
    for (const entry of path) entry.total_us += node.own_us;
    for (const id of node.children) waiting.push([byId.get(id), path]);
  }
}

// Times of samples, summed for each node of the tree.
function timesOf({ samples, timeDeltas }) {
  const times = new Map();
  samples.forEach((id, at) => times.set(id, (times.get(id) ?? 0) + Math.max(0, timeDeltas[at + 1] ?? 0)));
  return times;
}

function lineFinder(text) {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return (offset) => {
    let low = 0;
    let high = starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  };
}

module.exports = { Console, NAME_MAX_CHARS, lineFinder, profileOf, timesOf };
