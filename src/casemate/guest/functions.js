// Names of functions in a program's text: the first that is there, and whether a text can be such a name at all.
//
// No parser: a reader of words that knows comments, texts, templates and regular expressions, and looks at what stands at
// the top level. A name that it finds is only looked up afterwards, so the worst of a mistake is that there is no such one.
'use strict';

const NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*$/u;
const RESERVED = new Set(
  `await break case catch class const continue debugger default delete do else enum export extends false finally for
  function if import in instanceof let new null return static super switch this throw true try typeof var void while
  with yield arguments eval`.split(/\s+/),
);
const BEFORE_OPERAND = new Set('case delete do else in instanceof new of return throw typeof void yield await'.split(' '));
const BLANK = /(?:\s+|\/\/.*|\/\*[^]*?(?:\*\/|$)|^#!.*)/uy;
const WORD = /[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*|[0-9][\w.]*/uy;
const QUOTED = /"(?:[^"\\\n]|\\[^])*"?|'(?:[^'\\\n]|\\[^])*'?/y;
const REGULAR = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/\w*/y;
const TEMPLATE = /(?:[^`\\$]|\\[^]|\$(?!\{))*(?:`|\$\{|$)/y;
const PUNCTUATOR = /=>|[=!]==?|[<>]=|\+\+|--|\*\*|&&|\|\||\?\?|[^]/y;
const TOP = 0;

function isName(text) {
  return NAME.test(text) && !RESERVED.has(text);
}

// The name of the first function at the top level, declared or assigned; null if there is none.
function firstFunction(source) {
  const words = topLevel(source);
  for (let at = 0; at < words.length; at += 1) {
    const name = declared(words, at) ?? assigned(words, at);
    if (name !== null && isName(name)) return name;
  }
  return null;
}

// `function name`, `async function name`, `function* name`, where a statement may begin.
function declared(words, at) {
  if (words[at].text !== 'function') return null;
  const before = words[at - 1]?.text === 'async' ? words[at - 2] : words[at - 1];
  if (before !== undefined && !mayEndStatement(before)) return null;
  const next = words[at + 1]?.text === '*' ? words[at + 2] : words[at + 1];
  return next?.isWord ? next.text : null;
}

function mayEndStatement({ text, isOperand }) {
  return isOperand || [';', '}', 'export', 'default'].includes(text);
}

// `name = function`, `name = (…) =>`, `name = each =>`, and the same with `async`.
function assigned(words, at) {
  if (!words[at].isWord || words[at + 1]?.text !== '=' || words[at - 1]?.text === '.') return null;
  let from = at + 2;
  if (words[from]?.text === 'async' && words[from + 1]?.text !== '=>') from += 1;
  if (words[from]?.text === 'function') return words[at].text;
  const after = words[from]?.text === '(' ? words[from + 2] : words[from]?.isWord ? words[from + 1] : undefined;
  return after?.text === '=>' ? words[at].text : null;
}

// What stands at the top level, with a pair of brackets for whatever is in brackets.
function topLevel(source) {
  const words = [];
  const open = Object.assign([], { noneBefore: 0 });
  let last;
  for (let at = skip(source, 0); at < source.length; at = skip(source, at)) {
    const word = read(source, at, last, open);
    at += word.length;
    if (open.length === TOP || (word.opens && open.length === TOP + 1)) words.push(word);
    last = word;
  }
  return words;
}

function skip(source, from) {
  let at = from;
  for (let length = matched(BLANK, source, at); length > 0; length = matched(BLANK, source, at)) at += length;
  return at;
}

function read(source, at, last, open) {
  const char = source[at];
  const word = matched(WORD, source, at);
  if (word > 0) return named(source.slice(at, at + word));
  const quoted = char === '"' || char === "'" ? matched(QUOTED, source, at) : 0;
  if (quoted > 0) return operand(quoted);
  const regular = char === '/' && !last?.isOperand ? regularAt(source, at, open) : 0;
  if (regular > 0) return operand(regular);
  if (char === '`') return template(source, at, 1, open);
  if (char === '}' && open.at(-1) === '`') {
    open.pop();
    return template(source, at, 1, open);
  }
  return punctuator(source.slice(at, at + matched(PUNCTUATOR, source, at)), open);
}

// Where one does not end on its line, no other of that line is tried: each would be read to the line's end again.
function regularAt(source, at, open) {
  if (at < open.noneBefore) return 0;
  const length = matched(REGULAR, source, at);
  if (length > 0) return length;
  const end = source.indexOf('\n', at);
  open.noneBefore = end < 0 ? source.length : end;
  return 0;
}

function named(text) {
  return { text, length: text.length, isWord: true, isOperand: !BEFORE_OPERAND.has(text) && !RESERVED.has(text) };
}

function operand(length) {
  return { text: '', length, isOperand: true };
}

// Up to its end, or to `${`, from where on there is code again.
function template(source, at, mark, open) {
  const length = mark + matched(TEMPLATE, source, at + mark);
  const goesOn = source.slice(at, at + length).endsWith('${') && length >= 2;
  if (goesOn) open.push('`');
  return { text: '', length, isOperand: !goesOn, opens: goesOn };
}

function punctuator(text, open) {
  const opens = text === '(' || text === '[' || text === '{';
  const closes = text === ')' || text === ']' || text === '}';
  if (opens) open.push(text);
  if (closes) open.pop();
  return { text, length: text.length, opens, isOperand: text === ')' || text === ']' };
}

function matched(pattern, source, at) {
  pattern.lastIndex = at;
  return pattern.test(source) ? pattern.lastIndex - at : 0;
}

module.exports = { firstFunction, isName };
