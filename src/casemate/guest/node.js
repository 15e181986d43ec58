// Preloaded into Node, which then loads and runs the program by its own means:
// `node --experimental-vm-modules --require <this file> <a path where nothing is>`.
//
// Descriptor 3 carries the request, descriptor 4 takes the reply (Node closes both for child processes). Node's own
// loader is told to take the program's text from the request instead of a file. So modules, stacks, exit codes and
// messages are those of `node FILE`; the last statement of the text tells us of the program's top-level names.
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');
const vm = require('vm');
const { pathToFileURL } = require('url');
const { types } = require('util');

const REQUEST_FD = 3;
const REPLY_FD = 4;
const VALUE_MAX_BYTES = 10 * 1024 * 1024;
const DEPTH_MAX = 200;
const DIGITS_MAX = 4300;
const TEXT_MAX_CHARS = 16384;
const KEY_MAX_CHARS = 80;
const PROGRAM = Symbol.for('casemate.program');
const OURS = 'globalThis[Symbol.for("casemate.program")]';
const HEADER = `${OURS}?.begin(() => output, () => main);`;
const EPILOGUE = `\n;${OURS}?.end(() => output, () => main) && ${OURS}.settle(main(${OURS}.input));`;
const WRAPPER_NAMES = ['exports', 'require', 'module', '__filename', '__dirname'];
const { parse, stringify } = JSON;

const program = { ended: false, failure: null, returned: undefined, result: undefined, output: null, main: null };
const { SourceTextModule } = vm;
// What the option --experimental-vm-modules adds is for us alone: to ask whether a text is an ES module.
for (const name of ['Module', 'SourceTextModule', 'SyntheticModule']) delete vm[name];

// Worker threads are given the same preloaded modules, but the program is the main thread's. That thread alone may
// change the directory; asking `worker_threads` would cost as much as all the rest.
if (!process.chdir.disabled) start(parse(readFrame().toString()));

function start(request) {
  const filename = path.resolve(request.filename);
  process.argv = [process.argv[0], filename, ...request.args];
  process.execArgv = [];
  Object.assign(process.env, request.env);
  delete require.cache[__filename];
  if (request.has_input) globalThis.input = request.input;
  // Modules are strict: there an assignment to `output` needs the name to exist.
  Object.defineProperty(globalThis, 'output', { value: undefined, writable: true, configurable: true });
  const observer = { input: request.input, begin, end: (output, main) => end(request, output, main), settle };
  Object.defineProperty(globalThis, PROGRAM, { value: observer, configurable: true });
  process.on('uncaughtExceptionMonitor', (error) => {
    if (process.listenerCount('uncaughtException') === 0) program.failure = { error };
  });
  process.on('exit', reply);
  serve(request, filename);
}

function readFrame() {
  fs.writeSync(REPLY_FD, Buffer.alloc(4)); // an empty frame: from now on the request may come
  const frame = readExactly(readExactly(4).readUInt32BE(0));
  fs.closeSync(REQUEST_FD);
  return frame;
}

function readExactly(count) {
  const data = Buffer.allocUnsafe(count);
  for (let have = 0; have < count; ) {
    const read = fs.readSync(REQUEST_FD, data, have, count - have, null);
    if (read === 0) throw new Error('casemate: the request on descriptor 3 ends early');
    have += read;
  }
  return data;
}

// Giving Node the program ---------------------------------------------------------------------

function serve(request, filename) {
  const { code } = request;
  const isScript = compiles(() => new vm.Script(code));
  const isCommon = isScript || compiles(() => vm.compileFunction(code, WRAPPER_NAMES));
  const returns = isCommon && !isScript;
  const asModule = filename.endsWith('.mjs') || (!filename.endsWith('.cjs') && (!isCommon || inModulePackage(filename)));
  // What is no program at all stays as it is: Node shall complain about the text that its author knows.
  const source = (asModule ? isModule(code) : isCommon) ? observed(code, returns) : code;
  place(filename, code);
  let main = filename;
  let text = source;
  if (asModule) {
    const file = withModuleEnding(filename, code);
    serveModule(file, source);
    if (!process.features.require_module) {
      // This Node takes no module for its main program; it imports one gladly.
      text = `import(${stringify(pathToFileURL(file).href)});`;
      main = `${filename}.cjs`;
    }
  }
  once(Module, '_resolveFilename', (asked, parent, isMain) => isMain === true, () => main);
  once(fs, 'readFileSync', (file) => file === main, () => text);
  if (returns && !asModule) watchReturn(request);
}

// Make the program the file that it natively is, until its end. What lies there already stays as it is.
function place(filename, text) {
  try {
    fs.writeFileSync(filename, text, { flag: 'wx' });
  } catch {
    return false;
  }
  const made = fs.statSync(filename);
  process.on('exit', () => {
    const found = attempt(() => fs.statSync(filename));
    if (found?.ino === made.ino && found.mtimeMs === made.mtimeMs) fs.rmSync(filename, { force: true });
  });
  return true;
}

function isModule(code) {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return compiles(() => new SourceTextModule(code));
  } finally {
    process.emitWarning = emitWarning;
  }
}

function compiles(compile) {
  try {
    compile();
    return true;
  } catch {
    return false;
  }
}

// Replaces a function until it is called with the arguments that are waited for.
function once(owner, name, isAwaited, answer) {
  const original = owner[name];
  owner[name] = function (...args) {
    if (!isAwaited(...args)) return original.apply(this, args);
    owner[name] = original;
    return answer(...args);
  };
}

// The text with a call at its end that hands us closures over `output` and `main`. The end is not reached where the
// program returns or exits earlier: if it declares the names itself, another call is then needed at its beginning,
// although that moves the columns of its first line.
function observed(code, returns) {
  const declares = /\b(?:let|const|var)\b[^;=]*\boutput\b/.test(code);
  const early = returns ? declares || /\bmain\b/.test(code) : declares && /\bexit\b/.test(code);
  if (!early) return code + EPILOGUE;
  const strict = /^(?:\s|#!.*|\/\/.*|\/\*[^]*?\*\/)*(['"])use strict\1/.test(code) ? '"use strict";' : '';
  return strict + HEADER + code.replace(/^#!/, '//') + EPILOGUE;
}

// The loader of ES modules reads files by its own means; it is made to take the text instead.
function serveModule(filename, source) {
  const { href } = pathToFileURL(filename);
  if (!Module.registerHooks) {
    once(fs.promises, 'readFile', (url) => url?.href === href, () => Promise.resolve(Buffer.from(source)));
    return;
  }
  const hooks = Module.registerHooks({
    resolve: (asked, context, next) => (asked === href ? { url: href, shortCircuit: true } : next(asked, context)),
    load(asked, context, next) {
      // The loader of CommonJS asks first; it has the text already.
      if (asked !== href || !context.conditions.includes('import')) return next(asked, context);
      hooks.deregister();
      return { format: 'module', source, shortCircuit: true };
    },
  });
}

// A Node that does not look into a file takes it for a module by its name alone.
function withModuleEnding(filename, code) {
  if (process.features.require_module || filename.endsWith('.mjs')) return filename;
  const file = `${filename.slice(0, filename.length - path.extname(filename).length)}.mjs`;
  return place(file, code) ? file : filename;
}

function inModulePackage(filename) {
  for (let at = path.dirname(filename); ; at = path.dirname(at)) {
    try {
      return parse(fs.readFileSync(path.join(at, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT' || at === path.dirname(at)) return false;
    }
  }
}

// What the program tells us ---------------------------------------------------------------------

function watchReturn(request) {
  const compile = Module.prototype._compile;
  Module.prototype._compile = function (...args) {
    Module.prototype._compile = compile;
    settle(compile.apply(this, args), 'returned');
    if (end(request, program.output, program.main)) process.nextTick(() => settle(program.main()(request.input)));
  };
}

function begin(output, main) {
  program.output = output;
  program.main = main;
}

// The top level is over. Says whether `main(input)` is to be called: if it is a function with exactly one required
// parameter and nothing else is the output. The program's text calls it, so that no frame of ours is in its stack.
function end(request, output, main) {
  begin(output, main);
  if (program.ended || !request.has_input || program.returned !== undefined || currentOutput() !== undefined) {
    return false;
  }
  program.ended = true;
  const value = attempt(main);
  return typeof value === 'function' && value.length === 1;
}

// A promise counts when it is fulfilled; if it is rejected, nobody has handled that, and Node ends the program.
function settle(value, slot = 'result') {
  if (types.isPromise(value)) {
    value.then((settled) => {
      program[slot] = settled;
    });
  } else {
    program[slot] = value;
  }
}

function currentOutput() {
  const own = attempt(program.output);
  return own === undefined ? globalThis.output : own;
}

function attempt(read) {
  try {
    return read?.();
  } catch {
    return undefined; // the name is not declared, or not yet
  }
}

function reply() {
  if (program.failure) return send({ kind: 'exception', error: describe(program.failure.error) });
  const value = [program.returned, currentOutput(), program.result].find((each) => each !== undefined);
  if (value === undefined) return send({ kind: 'none' });
  try {
    return sendText(`{"kind":"value","output":${topText(value)}}`);
  } catch (error) {
    const problem = error instanceof Unwritable ? error.problem() : `output: converting it failed with ${first(error)}`;
    return send({ kind: 'invalid', error: { type: 'InvalidOutput', message: clip(problem), traceback: '' } });
  }
}

function describe(error) {
  const isError = attempt(() => types.isNativeError(error) || error instanceof Error);
  const read = (name) => (isError ? attempt(() => String(error[name])) : undefined);
  return {
    type: clip(read('name') ?? typeof error),
    message: clip(read('message') ?? attempt(() => String(error)) ?? ''),
    traceback: clip(read('stack') ?? ''),
  };
}

function first(error) {
  const { type, message } = describe(error);
  return `${type}: ${message}`;
}

function clip(text) {
  return wellFormed(text.slice(0, TEXT_MAX_CHARS));
}

function send(message) {
  sendText(stringify(message));
}

function sendText(text) {
  const body = Buffer.from(text);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  try {
    for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(REPLY_FD, frame, sent);
    fs.closeSync(REPLY_FD);
  } catch {
    // The program has closed it: there is no reply then, and its exit status stands.
  }
}

// Values as JSON --------------------------------------------------------------------------------

class Unwritable extends Error {
  constructor(message) {
    super(message);
    this.path = '';
  }

  below(key) {
    const plain = typeof key === 'string' && /^[A-Za-z_$][\w$]*$/.test(key) && key.length <= KEY_MAX_CHARS;
    this.path = (plain ? `.${key}` : `[${stringify(key).slice(0, KEY_MAX_CHARS)}]`) + this.path;
    return this;
  }

  problem() {
    return `output${this.path}: ${this.message}`;
  }
}

function topText(value) {
  const text = toText(value, []);
  if (text === undefined) throw new Unwritable(`a ${typeof value} cannot be written as JSON`);
  if (Buffer.byteLength(text) > VALUE_MAX_BYTES - 64) throw tooLarge();
  return text;
}

function tooLarge() {
  return new Unwritable(`more than the ${VALUE_MAX_BYTES} bytes of JSON that are allowed`);
}

// The text of a value; undefined for what has none and is left out: undefined itself, functions and symbols.
function toText(value, above) {
  switch (typeof value) {
    case 'string':
      return stringify(wellFormed(value));
    case 'number':
      return Number.isFinite(value) ? stringify(value) : 'null';
    case 'boolean':
      return value ? 'true' : 'false';
    case 'bigint':
      return integerText(value);
    case 'object':
      return value === null ? 'null' : objectText(value, above);
    default:
      return undefined;
  }
}

// Half of a surrogate pair, which UTF-8 cannot hold, becomes the replacement character.
function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

function integerText(value) {
  const digits = value.toString();
  if (digits.length > DIGITS_MAX) throw new Unwritable(`an integer of more than ${DIGITS_MAX} digits`);
  return digits;
}

function objectText(value, above) {
  if (above.includes(value)) throw new Unwritable('circular reference');
  if (above.length >= DEPTH_MAX) throw new Unwritable(`nested more than ${DEPTH_MAX} deep`);
  above.push(value);
  try {
    if (Buffer.isBuffer(value)) return stringify(value.toString('base64'));
    if (typeof value.toJSON !== 'function') return containerText(value, above);
    const converted = value.toJSON();
    if (converted === value || typeof converted !== 'object' || converted === null) {
      return converted === value ? containerText(value, above) : toText(converted, above);
    }
    return containerText(converted, above);
  } finally {
    above.pop();
  }
}

function containerText(value, above) {
  if (Array.isArray(value) || types.isTypedArray(value)) return arrayText(value, above);
  if (types.isSet(value)) return arrayText([...value], above);
  if (types.isMap(value)) return entriesText([...value].map(([key, item]) => [keyText(key), item]), above);
  if (types.isBoxedPrimitive(value)) return toText(value.valueOf(), above);
  if (types.isAnyArrayBuffer(value)) return stringify(Buffer.from(value).toString('base64'));
  if (types.isDataView(value)) {
    return stringify(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64'));
  }
  if (types.isNativeError(value)) return stringify({ name: clip(`${value.name}`), message: clip(`${value.message}`) });
  const refused = REFUSED.find(([isKind]) => isKind(value));
  if (refused) throw new Unwritable(`a ${refused[1]} cannot be written as JSON`);
  return entriesText(Object.keys(value).map((key) => [key, value[key]]), above);
}

const REFUSED = [
  [types.isPromise, 'Promise'],
  [types.isRegExp, 'RegExp'],
  [types.isWeakMap, 'WeakMap'],
  [types.isWeakSet, 'WeakSet'],
  [types.isGeneratorObject, 'generator'],
  [types.isMapIterator, 'iterator'],
  [types.isSetIterator, 'iterator'],
];

function arrayText(values, above) {
  let text = '';
  for (let index = 0; index < values.length; index += 1) {
    text += (index ? ',' : '') + (within(index, values[index], above) ?? 'null');
    if (text.length > VALUE_MAX_BYTES) throw tooLarge();
  }
  return `[${text}]`;
}

function entriesText(entries, above) {
  const seen = new Set();
  let text = '';
  for (const [key, value] of entries) {
    const item = within(key, value, above);
    if (item === undefined) continue;
    const name = stringify(wellFormed(key));
    if (seen.has(name)) throw new Unwritable(`two keys become ${name.slice(0, KEY_MAX_CHARS)}`);
    seen.add(name);
    text += `${text ? ',' : ''}${name}:${item}`;
    if (text.length > VALUE_MAX_BYTES) throw tooLarge();
  }
  return `{${text}}`;
}

function within(key, value, above) {
  try {
    return toText(value, above);
  } catch (error) {
    throw error instanceof Unwritable ? error.below(key) : error;
  }
}

// The name of a Map's entry whose key is not text: what the value would be written as.
function keyText(key) {
  if (typeof key === 'string') return key;
  if (key !== null && (typeof key === 'object' || typeof key === 'function' || typeof key === 'symbol')) {
    throw new Unwritable(`a key of type ${typeof key} cannot be a name`);
  }
  return toText(key, []) ?? 'undefined';
}
