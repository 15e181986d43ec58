// What surrounds a program inside its isolate: it makes the globals, calls the program, and says how that ended.
//
// `$0` passes a text to stdout (1) or stderr (2). `$1` is the name under which the program's text finds `begin`, once, and
// calls it with the program as a function. The worker calls what is returned here when everything that the program had
// left to do is done, for the text of the reply.
'use strict';

const passOn = $0;
const PIECE_MAX_CHARS = 65536;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const ALWAYS = ['globalThis', 'undefined', 'NaN', 'Infinity', 'input', 'output'];
const OURS = /^ +at (?:(?:.* \()?casemate:|.*:-\d+\)?$)/; // ours, and where ours calls the program
const { parse } = JSON;
const types = brands();
const replies = repliesWith({ types, isBuffer: () => false, toBase64, byteLength });
const rich = richWith(types);
const program = { peekOutput: undefined, peekMain: undefined, failure: null, pending: 0, returned: undefined, result: undefined };
let asked = {};

for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics']) delete globalThis[name];
give('console', consoleFor(write, inspectorFor(types)));
give('btoa', btoa);
give('atob', atob);
give('output', undefined);

give($1, begin);

return finish;

function give(name, value) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}

// In pieces: the texts of one isolate are not to be held twice at once, however long they are.
function write(fd, text, level) {
  for (let at = 0; at < text.length; at += PIECE_MAX_CHARS) passOn(fd, text.slice(at, at + PIECE_MAX_CHARS), level);
}

// The program -----------------------------------------------------------------------------------

function begin(body, inputText, given) {
  delete globalThis[$1];
  asked = parse(given);
  const hasInput = inputText !== undefined;
  let input;
  attend(() => {
    if (hasInput) give('input', (input = read(inputText)));
    surround(input);
    if (asked.globals) keepOnly(asked.globals);
    return body(peek);
  }, (returned) => {
    program.returned = returned;
    if (asked.calls) {
      if (returned === undefined) callNamed(hasInput ? (asked.spread ? input : [input]) : []);
      return;
    }
    if (!hasInput || returned !== undefined || hasOutput()) return;
    const main = attempt(program.peekMain);
    if (typeof main === 'function' && main.length === 1) attend(() => main(input), keepResult);
  });
}

// What an item has beside its data: a context that nothing can change, and with macros an output from the start.
function surround(input) {
  const { context, macros } = asked;
  if (context !== undefined) Object.defineProperty(globalThis, 'ctx', { value: frozen(context) });
  if (!macros) return;
  give('json', input);
  give('input_data', input);
  give('output', {});
}

// Names, and no wall: what has a literal is still made by it.
function keepOnly(names) {
  const kept = new Set([...ALWAYS, ...names]);
  for (const name of Object.getOwnPropertyNames(globalThis)) if (!kept.has(name)) delete globalThis[name];
}

function frozen(value) {
  if (value !== null && typeof value === 'object') Object.values(Object.freeze(value)).forEach(frozen);
  return value;
}

// One that was there from the start has to hold something.
function hasOutput() {
  const own = currentOutput();
  return own !== undefined && !(asked.macros && isEmpty(own));
}

function isEmpty(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0;
}

function read(text) {
  return asked.values === 'rich' ? rich.decode(parse(text)) : parse(text);
}

// The function that was asked for, with these arguments. What it returns is the output.
function callNamed(args) {
  const callee = attempt(program.peekMain);
  if (typeof callee === 'function') return attend(() => callee(...args), keepResult);
  const error = new Error('Function name not found');
  error.name = 'FunctionNotFound';
  error.stack = '';
  return fail(error);
}

function keepResult(result) {
  program.result = result;
}

// The program's first statement: it hands us closures over names that it may declare.
function peek(output, main) {
  program.peekOutput = output;
  program.peekMain = main;
}

// Calls, and awaits what is returned if it is a promise.
function attend(call, then) {
  try {
    const value = call();
    if (!types.isPromise(value)) return then(value);
    program.pending += 1;
    Promise.prototype.then.call(value, (settled) => {
      program.pending -= 1;
      attend(() => then(settled), () => undefined);
    }, fail);
  } catch (error) {
    fail(error);
  }
  return undefined;
}

function fail(error) {
  program.failure ??= { error };
}

function currentOutput() {
  const own = attempt(program.peekOutput);
  return own === undefined ? globalThis.output : own;
}

function attempt(read) {
  try {
    return read?.();
  } catch {
    return undefined; // the name is not declared, or not yet
  }
}

// Nothing can settle a promise any more: there are no timers here, and nothing comes from outside.
function finish() {
  if (!program.failure && program.pending > 0) {
    program.failure = { error: new Error('the program waits for a promise that nothing will settle') };
    program.failure.error.name = 'UnsettledPromise';
    program.failure.error.stack = '';
  }
  if (program.failure) return reportFailure(replies.describe(program.failure.error));
  const own = asked.calls && !asked.macros ? undefined : currentOutput();
  // With macros there is an `output` from the start: whatever is returned comes before it.
  const found = asked.macros ? [program.returned, program.result, own] : [program.returned, own, program.result];
  const value = found.find((each) => each !== undefined);
  return asked.values === 'rich' ? replies.textOfRich(value, rich.encode) : replies.textOfValue(value);
}

function reportFailure(error) {
  const lines = error.traceback.split('\n').filter((line) => !OURS.test(line));
  const traceback = lines.join('\n');
  write(2, `Uncaught ${traceback || `${error.type}: ${error.message}`}\n`);
  return replies.textOfError({ ...error, traceback });
}

// Bytes and texts -------------------------------------------------------------------------------

function btoa(text) {
  const bytes = Array.from(String(text), (char) => char.codePointAt(0));
  if (bytes.some((code) => code > 0xff)) throw new RangeError('btoa: the text has a character that is no byte');
  return toBase64(bytes);
}

function atob(text) {
  const digits = String(text).replace(/[\t\n\f\r ]/g, '');
  const plain = digits.length % 4 === 0 ? digits.replace(/={1,2}$/, '') : digits;
  if (plain.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(plain)) throw new RangeError('atob: the text is no base64');
  let bits = 0;
  let count = 0;
  let bytes = '';
  for (const digit of plain) {
    bits = ((bits << 6) | ALPHABET.indexOf(digit)) & 0xffffff;
    count += 6;
    if (count >= 8) bytes += String.fromCharCode((bits >> (count -= 8)) & 0xff);
  }
  return bytes;
}

function toBase64(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 3) {
    const three = (bytes[at] << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    const digits = [18, 12, 6, 0].map((shift) => ALPHABET[(three >> shift) & 63]);
    text += digits.slice(0, Math.min(4, bytes.length - at + 1)).join('');
  }
  return text.padEnd(Math.ceil(text.length / 4) * 4, '=');
}

function byteLength(text) {
  let bytes = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : 3; // each half of a pair counts two of its four bytes, and one more
    if (code >= 0xd800 && code < 0xdc00) bytes -= 2;
  }
  return bytes;
}

// What things are, whatever they claim: each has a method that works on nothing else.
function brands() {
  const works = (method, ...args) => (value) => {
    try {
      Reflect.apply(method, value, args);
      return true;
    } catch {
      return false;
    }
  };
  const getter = (owner, name) => Object.getOwnPropertyDescriptor(owner, name).get;
  const tag = (text) => (value) => Object.prototype.toString.call(value) === `[object ${text}]`;
  const typedName = getter(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag);
  const boxes = [Number, String, Boolean, BigInt, Symbol].map((box) => works(box.prototype.valueOf));
  const buffer = works(getter(ArrayBuffer.prototype, 'byteLength'));
  return {
    isPromise: (value) => value instanceof Promise && works(Promise.prototype.then, undefined, () => {})(value),
    isMap: works(getter(Map.prototype, 'size')),
    isSet: works(getter(Set.prototype, 'size')),
    isWeakMap: works(WeakMap.prototype.has, {}),
    isWeakSet: works(WeakSet.prototype.has, {}),
    isRegExp: works(getter(RegExp.prototype, 'source')),
    isDate: works(Date.prototype.getTime),
    isTypedArray: (value) => Reflect.apply(typedName, value, []) !== undefined,
    isDataView: works(getter(DataView.prototype, 'buffer')),
    isAnyArrayBuffer: buffer,
    isNativeError: tag('Error'),
    isGeneratorObject: tag('Generator'),
    isMapIterator: tag('Map Iterator'),
    isSetIterator: tag('Set Iterator'),
    isBoxedPrimitive: (value) => boxes.some((is) => is(value)),
  };
}
