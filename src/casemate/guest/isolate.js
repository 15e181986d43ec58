// A worker that runs programs in V8 isolates, a fresh one for each: `node --no-node-snapshot isolate.js ADDON HEAP_MIB`.
//
// Descriptor 3 carries requests, descriptor 4 the answers; stdout and stderr are those of the program that runs. A
// request is two frames, what to run and the input's JSON text. To it belong any number of empty frames, the first when
// it has been taken and one now and then as a sign of life, and one answer. Between two of them nothing is awake here.
//
// Nothing of this process is handed into an isolate but one function that takes a number and a text. Values cross as
// JSON text, errors as texts that were made inside.
'use strict';

const fs = require('fs');
const path = require('path');
const { types } = require('util');

const [, , addon, heapAtStart] = process.argv;
const { Callback, Isolate } = require(addon).ivm;
const { clip } = require('./values.js')({ types });
const { firstFunction, isName } = require('./functions.js');

const REQUEST_FD = 3;
const REPLY_FD = 4;
const HEARTBEAT_MS = 500;
const EMPTY = Buffer.alloc(4);
const PARTS = ['values.js', 'rich.js', 'inspect.js', 'isolate_program.js'];
// What surrounds a program has these by itself, whichever of them the program is left with.
const OWN = `const {
  Array, ArrayBuffer, BigInt, BigInt64Array, BigUint64Array, Boolean, DataView, Date, Error, EvalError, Float32Array,
  Float64Array, Function, Int16Array, Int32Array, Int8Array, JSON, Map, Math, Number, Object, Promise,
  RangeError, ReferenceError, Reflect, RegExp, Set, String, Symbol, SyntaxError, TypeError, URIError, Uint16Array,
  Uint32Array, Uint8Array, Uint8ClampedArray, WeakMap, WeakSet, isFinite, isNaN, parseFloat, parseInt,
} = globalThis;`;
const HARNESS = `(function ($0, $1) {${OWN}${PARTS.map((name) => fs.readFileSync(path.join(__dirname, name), 'utf8')).join('\n')}})`;
const BEGIN = '$casemate$begin';
const PEEK = '$casemate$peek';
const ALONE = 'try { new Function($0) } catch { new (async function () {}).constructor($0) }';
const BLANK_OR_COMMENT = /\s+|#!.*|\/\/.*|\/\*[^]*?\*\//y;
const USE_STRICT = /(['"])use strict\1/y;
const PLACE = /^ \[(.*:\d+:\d+)\]$/;
const PLACE_MAX_CHARS = 4096;
const BOUNDARY = '    at (<isolated-vm boundary>)';
const FRAME = /^ +at (?!(?:.* \()?casemate:)(?!.*:-\d+\)?$)/; // not ours, and not where ours calls the program
const NO_FUNCTION = { type: 'FunctionNotFound', message: 'Function name not found', traceback: '' };
const SPOILT = { type: 'SpoiltReply', message: 'the program has changed what makes its reply', traceback: '' };
const STDOUT = 1;
const STDERR = 2;

let compiled;
let compiledLibrary;

serve(Number(heapAtStart)).catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(70);
});

async function serve(heapMib) {
  let ready = prepare(heapMib);
  sendRaw(EMPTY);
  for (let request = readRequest(); request !== null; request = readRequest()) {
    sendRaw(EMPTY);
    if (ready.heapMib !== request.heap_mib || isWatched(request)) ready = replace(ready, request.heap_mib, request);
    const answer = await observed(ready, request);
    send(answer);
    if (answer.last) return process.exit(0);
    ready = replace(ready, request.heap_mib);
  }
  return process.exit(0);
}

// Isolates --------------------------------------------------------------------------------------

// Made before it is needed. No program has been in it, so nothing here can take long.
function prepare(heapMib, request) {
  const ready = { heapMib };
  ready.broken = new Promise((resolve) => {
    const onCatastrophicError = () => resolve({ memory: true, last: true, reply: { kind: 'none' } });
    ready.isolate = new Isolate({ memoryLimit: heapMib, onCatastrophicError, inspector: isWatched(request) });
  });
  ready.context = ready.isolate.createContextSync({ inspector: isWatched(request) });
  const surround = compileHarness(ready.isolate).runSync(ready.context, { reference: true });
  const write = new Callback((fd, text, level) => writeFor(ready, fd, text, level), { sync: true });
  ready.finish = surround.applySync(undefined, [write, BEGIN], { result: { reference: true } });
  return ready;
}

// Compiled once; the others take over what came of that.
function compileHarness(isolate) {
  const cached = compiled === undefined ? { produceCachedData: true } : { cachedData: compiled };
  const script = isolate.compileScriptSync(HARNESS, { filename: 'casemate:harness', ...cached });
  compiled ??= script.cachedData;
  return script;
}

// Compiled once, too; it is ours and the same for all.
function compileLibrary(isolate, text) {
  const cached = compiledLibrary === undefined ? { produceCachedData: true } : { cachedData: compiledLibrary };
  const script = isolate.compileScriptSync(text, { filename: 'casemate:macros', ...cached });
  compiledLibrary ??= script.cachedData;
  return script;
}

function replace(used, heapMib, request) {
  if (!used.isolate.isDisposed) used.isolate.dispose();
  return prepare(heapMib, request);
}

// An inspector costs an isolate something, so only those have one whose program is asked about.
function isWatched(request) {
  return Boolean(request?.debug?.profile || request?.debug?.steps);
}

async function observed(ready, request) {
  const heart = setInterval(() => sendRaw(EMPTY), HEARTBEAT_MS);
  try {
    const answer = await Promise.race([execute(ready, request), ready.broken]);
    return { ...answer, debug: ready.recorder?.text(), worker: measured(ready.isolate, answer) };
  } finally {
    clearInterval(heart);
  }
}

async function execute(ready, request) {
  try {
    if (request.check) return { reply: { kind: 'value', output: await syntaxOf(ready, request) } };
    if (request.debug) {
      const { Recorder } = require('./isolate_debug.js');
      ready.recorder = new Recorder(ready.isolate, request);
    }
    const failure = await run(ready, request);
    if (failure !== undefined) return { reply: exceptionReply(failure) };
    // All that was left to be done has been done by now: the next call enters anew.
    const reply = await ready.finish.apply();
    return { reply: typeof reply === 'string' ? reply : exceptionReply(SPOILT) };
  } catch (error) {
    if (ready.isolate.isDisposed) return { memory: true };
    return { reply: exceptionReply(describe(error)) };
  }
}

// Returns what is wrong with a program that does not compile. What else goes wrong has happened to the program itself.
async function run(ready, request) {
  const { code, function: wanted, has_input: hasInput, input } = request;
  const { spread, values, globals, context, library } = request;
  const asked = { calls: Boolean(wanted), spread, values, globals, context, macros: Boolean(library) };
  // Texts: with an object V8 would give the program's function a name, which would be in every stack.
  const given = [hasInput ? input : undefined, JSON.stringify(asked)].map((text) => JSON.stringify(text) ?? 'undefined');
  const end = `\n}, ${given.join(', ')})`;
  const named = wanted === '*' ? firstFunction(code) : wanted;
  const callee = wanted && named !== null && isName(named) ? named : 'main';
  await ready.recorder?.begin();
  const { script, mistake } = await compiledProgram(ready, request, callee, end);
  if (script === undefined) return mistake;
  if (wanted && callee !== named) return NO_FUNCTION;
  if (library) await compileLibrary(ready.isolate, library).run(ready.context);
  try {
    await script.run(ready.context);
  } finally {
    await ready.recorder?.end();
  }
  return undefined;
}

async function compiledProgram({ isolate, context, recorder }, { code, filename }, callee, end) {
  const text = code.replace(/^#!/, '//');
  const [script, mistake] = await compile(isolate, filename, text, callee, end, recorder);
  if (script !== undefined) return { script };
  return { mistake: describeMistake(await plainMistake(context, filename, text, mistake)) };
}

// Only whether it compiles, and else where it does not: nothing of the program is run.
async function syntaxOf(ready, request) {
  const { mistake = await mistakeAlone(ready, request) } = await compiledProgram(ready, request, 'main', '\n})');
  if (mistake === undefined) return { valid: true, message: '', line: null, column: null };
  const place = /:(\d+):(\d+)$/.exec(mistake.traceback.split('\n').at(-1));
  return { valid: false, message: mistake.message, line: place && Number(place[1]), column: place && Number(place[2]) };
}

// A program is the body of a function, so that it may return. If it says `await` anywhere, that is an async one: in
// another, `await (x)` is a call. Only what uses the word as a name of its own does not fit there.
// Whether it is the body of a function by itself, too, and does not end ours and begin another.
async function mistakeAlone({ context }, { code }) {
  try {
    await context.evalClosure(ALONE, [code.replace(/^#!/, '//')]);
    return undefined;
  } catch (error) {
    return described('SyntaxError', String(error.message).replace(/ \[<[^\n]*\]$/, ''), []);
  }
}

async function compile(isolate, filename, text, callee, end, recorder) {
  const kinds = /\bawait\b/.test(text) ? ['async function', 'function'] : ['function'];
  let mistake;
  for (const kind of kinds) {
    try {
      return [await compileAs(kind, isolate, filename, text, callee, end, recorder)];
    } catch (error) {
      if (isolate.isDisposed) throw error;
      mistake ??= error;
    }
  }
  return [undefined, mistake];
}

// Messages count lines and columns as in the text that its author knows: the offset takes our beginning away.
function compileAs(kind, isolate, filename, text, callee, end, recorder) {
  const strict = isStrict(text) ? '"use strict";' : '';
  const start = `${BEGIN}(${kind} (${PEEK}) {${strict}${PEEK}(() => output, () => ${callee});${recorder?.stop ?? ''}`;
  if (recorder) recorder.compiled = { start, text: start + text + end, lines: text.split('\n').length };
  return isolate.compileScript(start + text + end, { filename, columnOffset: -start.length });
}

// In linear time: what comes first in a program may be many comments.
function isStrict(text) {
  BLANK_OR_COMMENT.lastIndex = 0;
  let at = 0;
  while (BLANK_OR_COMMENT.test(text)) at = BLANK_OR_COMMENT.lastIndex;
  USE_STRICT.lastIndex = at;
  return USE_STRICT.test(text);
}

// The same mistake, seen without our wrapping: that would say something about its closing brace.
async function plainMistake(context, filename, text, mistake) {
  const start = 'return;';
  try {
    await context.evalClosure(start + text, [], { filename, columnOffset: -start.length });
  } catch (plain) {
    if (plain instanceof SyntaxError && !plain.message.startsWith('await is only valid')) return plain;
  }
  return mistake;
}

// The library adds the place to the message of what does not compile. Messages are as long as the program makes them.
function describeMistake({ name, message }) {
  const tail = message.slice(-PLACE_MAX_CHARS);
  const at = Math.max(0, tail.lastIndexOf(' ['));
  const place = PLACE.exec(tail.slice(at));
  if (place === null) return described(name, message, []);
  return described(name, message.slice(0, -place[0].length), [`    at ${place[1]}`]);
}

// A rejection that nobody has handled. The library has made an error of this side of it, or it is a primitive value.
function describe(error) {
  if (!(error instanceof Error)) return { type: typeof error, message: clip(String(error)), traceback: '' };
  const frames = String(error.stack).split(BOUNDARY)[0].split('\n').filter((line) => FRAME.test(line));
  return described(String(error.name), String(error.message), frames);
}

function described(type, message, frames) {
  const start = `${clip(type)}: ${clip(message)}`;
  return { type: clip(type), message: clip(message), traceback: clip([start, ...frames].join('\n')) };
}

function exceptionReply(error) {
  writeText(STDERR, `Uncaught ${error.traceback || `${error.type}: ${error.message}`}\n`);
  return { kind: 'exception', error };
}

// A broken isolate stays locked for ever.
function measured(isolate, { memory, last }) {
  const rss = process.memoryUsage.rss();
  if (last || isolate.isDisposed) return { rss, memory, last };
  const heap = isolate.getHeapStatisticsSync();
  return {
    rss,
    memory,
    last,
    used: heap.used_heap_size,
    total: heap.total_heap_size,
    external: heap.externally_allocated_size,
    malloced: heap.malloced_memory,
  };
}

// Called from within an isolate, which waits for it: whoever prints faster than is read is slowed down.
function writeFor({ recorder }, fd, text, level) {
  writeText(fd, text);
  if (typeof text === 'string') recorder?.note(fd, text, level);
}

function writeText(fd, text) {
  if ((fd !== STDOUT && fd !== STDERR) || typeof text !== 'string') return;
  writeAll(fd, Buffer.from(text));
}

// Frames ----------------------------------------------------------------------------------------

function readRequest() {
  const head = readFrame();
  if (head === null) return null;
  const input = readFrame();
  return { ...JSON.parse(head.toString()), input: input.toString() };
}

function readFrame() {
  const head = readExactly(4);
  return head === null ? null : readExactly(head.readUInt32BE(0));
}

function readExactly(count) {
  const data = Buffer.allocUnsafe(count);
  for (let have = 0; have < count; ) {
    const read = fs.readSync(REQUEST_FD, data, have, count - have, null);
    if (read === 0) return null;
    have += read;
  }
  return data;
}

// The reply is text already, if it was made inside.
function send({ reply, worker, debug }) {
  const text = typeof reply === 'string' ? reply : JSON.stringify(reply ?? { kind: 'none' });
  const recorded = debug === undefined ? '' : `,"debug":${debug}`;
  const body = Buffer.from(`{"reply":${text},"worker":${JSON.stringify(worker)}${recorded}}`);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  sendRaw(frame);
}

function sendRaw(data) {
  writeAll(REPLY_FD, data);
}

function writeAll(fd, data) {
  for (let sent = 0; sent < data.length; ) sent += fs.writeSync(fd, data, sent);
}
