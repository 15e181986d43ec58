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
const PROGRAM = Symbol.for('casemate.program');
const OURS = 'globalThis[Symbol.for("casemate.program")]';
const headerFor = (callee) => `${OURS}?.begin(() => output, () => ${callee});`;
const epilogueFor = (callee, args) =>
  `\n;${OURS}?.end(() => output, () => ${callee}) && ${OURS}.settle(${callee}(${args}));`;
const BLANK_OR_COMMENT = /\s+|#!.*|\/\/.*|\/\*[^]*?\*\//y;
const USE_STRICT = /(['"])use strict\1/y;
const WRAPPER_NAMES = ['exports', 'require', 'module', '__filename', '__dirname'];
const { parse, stringify } = JSON;
const { describe, textOfError, textOfRich, textOfValue } = require('./values.js')({
  types,
  isBuffer: Buffer.isBuffer,
  toBase64: (bytes) => Buffer.from(bytes).toString('base64'),
  byteLength: Buffer.byteLength,
});

const program = { ended: false, failure: null, returned: undefined, result: undefined, output: null, main: null, recorder: null };
const placed = [];
let isReplied = false;
let callee = 'main';
let rich;
const { SourceTextModule } = vm;
const { emit, reallyExit } = process;
// With one of them Node has more to do at its end.
const isWatched = ['NODE_OPTIONS', 'NODE_V8_COVERAGE', 'LD_PRELOAD'].some((name) => name in process.env);
// What the option --experimental-vm-modules adds is for us alone: to ask whether a text is an ES module.
for (const name of ['Module', 'SourceTextModule', 'SyntheticModule']) delete vm[name];

// Worker threads are given the same preloaded modules, but the program is the main thread's. That thread alone may
// change the directory; asking `worker_threads` would cost as much as all the rest.
if (!process.chdir.disabled) start(parse(readFrame().toString()));

function start(request) {
  if (request.check) return leaveWith(textOfValue(syntaxOf(request)));
  const filename = path.resolve(request.filename);
  process.argv = [process.argv[0], filename, ...request.args];
  process.execArgv = [];
  Object.assign(process.env, request.env);
  for (const file of [__filename, require.resolve('./values.js')]) delete require.cache[file];
  process.on('uncaughtExceptionMonitor', (error) => {
    if (process.listenerCount('uncaughtException') === 0) program.failure = { error };
  });
  process.on('exit', leave);
  if (request.function) choose(request);
  if (request.values === 'rich') rich = neighbour('./rich.js')(types);
  if (rich && request.has_input) request.input = rich.decode(request.input);
  if (request.has_input) globalThis.input = request.input;
  // Modules are strict: there an assignment to `output` needs the name to exist.
  Object.defineProperty(globalThis, 'output', { value: undefined, writable: true, configurable: true });
  if (request.context !== undefined) surround(request);
  const observer = { input: request.input, args: argumentsOf(request), begin, settle };
  observer.end = (output, main) => end(request, output, main);
  Object.defineProperty(globalThis, PROGRAM, { value: observer, configurable: true });
  if (request.debug) watch(request.debug, filename);
  serve(request, filename);
}

// What an item has beside its data: a context that nothing can change, and with macros an output from the start.
function surround({ input, context, library }) {
  Object.defineProperty(globalThis, 'ctx', { value: frozen(context) });
  if (!library) return;
  program.macros = true;
  vm.runInThisContext(library, { filename: 'macros.js' });
  Object.defineProperties(globalThis, {
    json: { value: input, writable: true, configurable: true },
    input_data: { value: input, writable: true, configurable: true },
    output: { value: {}, writable: true, configurable: true },
  });
}

function frozen(value) {
  if (value !== null && typeof value === 'object') Object.values(Object.freeze(value)).forEach(frozen);
  return value;
}

// One that was there from the start has to hold something.
function hasOutput() {
  const own = currentOutput();
  return own !== undefined && !(program.macros && isEmpty(own));
}

function isEmpty(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0;
}

// Without a trace in the program's modules.
function neighbour(name) {
  const found = require(name);
  delete require.cache[require.resolve(name)];
  return found;
}

function watch(asked, filename) {
  program.recorder = new (neighbour('./node_debug.js').Recorder)(asked, filename);
  delete require.cache[require.resolve('./debug.js')];
}

// The name of the function that is to be called.
function choose(request) {
  const { firstFunction, isName } = neighbour('./functions.js');
  const name = request.function === '*' ? firstFunction(request.code) : request.function;
  if (name === null || !isName(name)) throw functionNotFound();
  callee = name;
}

function argumentsOf({ has_input: hasInput, spread, input }) {
  if (!hasInput) return [];
  return spread ? input : [input];
}

function leaveWith(text) {
  sendText(text);
  reallyExit.call(process, 0);
}

function readFrame() {
  rehearse();
  fs.writeSync(REPLY_FD, Buffer.alloc(4)); // an empty frame: from now on the request may come
  const frame = readExactly(readExactly(4).readUInt32BE(0));
  fs.closeSync(REQUEST_FD);
  return frame;
}

// Do a little of what every program does: what is needed for the first time then is loaded and compiled already.
function rehearse() {
  const { Writable } = require('stream');
  for (const name of ['net', 'tty']) require(name);
  const deaf = new Writable({ write() {} });
  new console.Console(deaf, deaf).log('%s', 1, { a: [1, 'b', null] });
  const code = 'let output = 1;';
  compiles(() => new vm.Script(code));
  compiles(() => vm.compileFunction(code, WRAPPER_NAMES));
  observed(code, false, false);
  inModulePackage(`${__filename}/nowhere`);
  parse(stringify({ path: path.resolve('nowhere') }));
  textOfValue({ a: [1] });
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
  const source = (asModule ? isModule(code) : isCommon) ? observed(code, returns, Boolean(request.function)) : code;
  program.recorder?.begin(code, source);
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
  placed.push([filename, fs.statSync(filename)]);
  return true;
}

function remove([filename, made]) {
  const found = attempt(() => fs.statSync(filename));
  if (found?.ino === made.ino && found.mtimeMs === made.mtimeMs) fs.rmSync(filename, { force: true });
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

// Whether a text is a program of any kind that `serve` knows, and else where it is not.
function syntaxOf({ code, filename }) {
  const asCommon = () => vm.compileFunction(code, WRAPPER_NAMES, { filename });
  const asModule = () => new SourceTextModule(code, { identifier: filename });
  const kinds = filename.endsWith('.mjs') ? [asModule] : filename.endsWith('.cjs') ? [asCommon] : [asCommon, asModule];
  const mistakes = [() => new vm.Script(code, { filename }), ...kinds].slice(kinds.length > 1 ? 0 : 1).map(mistakeOf);
  if (mistakes.includes(undefined)) return { valid: true, message: '', line: null, column: null };
  const isForModules = /import statement|'export'|'import.meta'|await is only valid/.test(mistakes.at(-2)?.message);
  return placeOf(isForModules ? mistakes.at(-1) : mistakes.at(-2) ?? mistakes.at(-1), filename);
}

function mistakeOf(compile) {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    compile();
    return undefined;
  } catch (error) {
    return error;
  } finally {
    process.emitWarning = emitWarning;
  }
}

// Above its name Node puts the place: the line's number, the line, and marks below what is wrong in it.
function placeOf({ message, stack }, filename) {
  const lines = String(stack).split('\n');
  const line = lines[0].startsWith(`${filename}:`) ? Number(lines[0].slice(filename.length + 1)) : NaN;
  const column = Number.isInteger(line) ? (lines[2] ?? '').indexOf('^') + 1 : 0;
  return { valid: false, message, line: Number.isInteger(line) ? line : null, column: column || null };
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
function observed(code, returns, calls) {
  const epilogue = epilogueFor(callee, calls ? `...${OURS}.args` : `${OURS}.input`);
  const declares = /\b(?:let|const|var)\b[^;=]*\boutput\b/.test(code);
  const early = returns ? calls || declares || /\bmain\b/.test(code) : declares && /\bexit\b/.test(code);
  if (!early) return code + epilogue;
  const strict = isStrict(code) ? '"use strict";' : '';
  return strict + headerFor(callee) + code.replace(/^#!/, '//') + epilogue;
}

// Step by step, because a program may begin with any number of comments.
function isStrict(code) {
  BLANK_OR_COMMENT.lastIndex = 0;
  let at = 0;
  while (BLANK_OR_COMMENT.test(code)) at = BLANK_OR_COMMENT.lastIndex;
  USE_STRICT.lastIndex = at;
  return USE_STRICT.test(code);
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
    const given = request.function ? argumentsOf(request) : [request.input];
    if (end(request, program.output, program.main)) process.nextTick(() => settle(program.main()(...given)));
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
  if (request.function) return endCalling(main);
  if (program.ended || !request.has_input || program.returned !== undefined || hasOutput()) {
    return false;
  }
  program.ended = true;
  const value = attempt(main);
  return typeof value === 'function' && value.length === 1;
}

function endCalling(main) {
  if (program.ended || program.returned !== undefined) return false;
  program.ended = true;
  program.calls = true;
  if (typeof attempt(main) === 'function') return true;
  throw functionNotFound();
}

function functionNotFound() {
  const error = new Error('Function name not found');
  error.name = 'FunctionNotFound';
  error.stack = `${error.name}: ${error.message}`;
  return error;
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

function leave(code) {
  reply();
  placed.forEach(remove);
  const status = process.exitCode ?? code;
  // Where nobody else has anything to do or to say at the end, Node only takes itself apart, which nobody can tell.
  const isAlone = process.listenerCount('exit') === 1 && process.emit === emit && process.reallyExit === reallyExit;
  if (isAlone && Number.isInteger(status) && !program.failure && !isWatched && !hasAddons()) {
    // Whoever waits for the program's end need not wait for that of the process.
    attempt(() => isReplied && fs.writeSync(REPLY_FD, Buffer.from([255, 255, 255, status & 255])));
    reallyExit.call(process, status);
  }
}

function hasAddons() {
  return Object.keys(Module._cache).some((name) => name.endsWith('.node'));
}

function reply() {
  program.recorder?.end();
  if (program.failure) return sendText(textOfError(describe(program.failure.error)));
  const own = program.calls && !program.macros ? undefined : currentOutput();
  // With macros there is an `output` from the start: whatever is returned comes before it.
  const last = program.macros ? [program.result, own] : [own, program.result];
  const value = [program.returned, ...last].find((each) => each !== undefined);
  return sendText(rich ? textOfRich(value, rich.encode) : textOfValue(value));
}

function sendText(text) {
  const body = Buffer.from(program.recorder === null ? text : program.recorder.joined(text));
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  try {
    for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(REPLY_FD, frame, sent);
    isReplied = true;
  } catch {
    // The program has closed it: there is no reply then, and its exit status stands.
  }
}
