// What is recorded of a program in an isolate. The inspector of the isolate is asked from outside, by this worker; the
// program cannot reach it. Steps are taken one after the other: at each one the isolate waits until it is told to go on.
'use strict';

const { Console, NAME_MAX_CHARS, lineFinder, profileOf } = require('./debug.js');

const STEPS_MAX = 1000; // each costs a round of messages between two threads
const RECORD_MAX_BYTES = 4 * 1024 * 1024;
const PAUSES_MAX = 2000; // there are many in one line, as in a loop that is written in one
const DEPTH_MAX = 50; // at each pause all calls are described, within the isolate's own heap
const NUDGE_MS = 1;
const PROGRAM = '<program>';

class Recorder {
  constructor(isolate, { debug, filename }) {
    this.isolate = isolate;
    this.asked = debug;
    this.filename = filename;
    this.compiled = { start: '', text: '', lines: 0 }; // what precedes the program's own text, all of it, and how many lines are its own
    this.console = debug.console ? new Console() : null;
    this.stop = debug.steps ? 'debugger;' : ''; // where the program's own text begins
    this.steps = [];
    this.stepsDropped = 0;
    this.isPaused = false;
    this.pauses = 0;
    this.place = '';
    this.scripts = new Set();
    this.profile = {};
    this.ids = 0;
    this.waiting = new Map();
  }

  note(fd, text, level) {
    this.console?.note(fd, text, level);
  }

  async begin() {
    if (!this.asked.steps && !this.asked.profile) return;
    this.session = this.isolate.createInspectorSession();
    this.session.onResponse = (id, text) => this.answered(id, text);
    this.session.onNotification = (text) => this.notified(JSON.parse(text));
    if (this.asked.steps) {
      this.nudging = setInterval(() => this.nudge(), NUDGE_MS);
      await this.ask('Debugger.enable');
      await this.ask('Debugger.setBlackboxPatterns', { patterns: ['^casemate:'] });
    }
    if (this.asked.profile) {
      await this.ask('Profiler.enable');
      await this.ask('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    }
  }

  // The program is over: what runs in the isolate now is ours.
  async end() {
    clearInterval(this.nudging);
    if (this.session === undefined || this.isolate.isDisposed) return;
    if (this.asked.steps) await this.ask('Debugger.disable');
    if (this.asked.profile) this.profile = await this.takeProfile();
    this.session.dispose();
    this.session = undefined;
  }

  // Calls are counted exactly. Their times would have to be sampled, which this library does not survive for long: its
  // isolates go from thread to thread, and V8 looks at the thread where it began.
  async takeProfile() {
    const answer = await this.ask('Profiler.takePreciseCoverage');
    await this.ask('Profiler.stopPreciseCoverage');
    await this.ask('Profiler.disable');
    const [script] = answer.result.result.filter(({ url }) => url === this.filename).slice(-1);
    if (script === undefined) return { profile: [], profile_dropped: 0 };
    const { start, text } = this.compiled;
    const [, body, ...others] = script.functions;
    const own = others.filter(({ ranges }) => ranges[0].startOffset >= start.length);
    const coverage = [{ ...body, functionName: PROGRAM }, ...own];
    return profileOf({ file: this.filename, coverage, lineAt: lineFinder(text) });
  }

  ask(method, params = {}) {
    return new Promise((resolve) => {
      this.waiting.set(this.ids + 1, resolve);
      this.tell(method, params);
    });
  }

  tell(method, params = {}) {
    this.ids += 1;
    this.session.dispatchProtocolMessage(JSON.stringify({ id: this.ids, method, params }));
  }

  // What is said to an isolate just before it begins to listen is heard only when something else is said.
  nudge() {
    if (this.isolate.isDisposed) clearInterval(this.nudging);
    else if (this.isPaused) this.tell('Schema.getDomains');
  }

  answered(id, text) {
    this.waiting.get(id)?.(JSON.parse(text));
    this.waiting.delete(id);
  }

  notified({ method, params }) {
    if (method === 'Debugger.scriptParsed' && params.url === this.filename) this.scripts.add(params.scriptId);
    if (method === 'Debugger.resumed') this.isPaused = false;
    if (method === 'Debugger.paused') this.paused(params.callFrames);
  }

  paused(frames) {
    this.isPaused = true;
    this.pauses += 1;
    if (this.steps.length >= STEPS_MAX || this.pauses > PAUSES_MAX || frames.length > DEPTH_MAX) {
      this.stepsDropped = 1; // and what comes after it, of which nobody takes note
      this.tell('Debugger.setSkipAllPauses', { skip: true });
      this.tell('Debugger.resume');
      return;
    }
    const [{ location, functionName, functionLocation }] = frames;
    if (this.scripts.has(location.scriptId)) this.reached(location, functionName, functionLocation, frames.length);
    this.tell('Debugger.stepInto');
  }

  // Within a line there are many steps; all but the first are the same line still.
  reached({ lineNumber, columnNumber }, name, start, depth) {
    if ((lineNumber === 0 && columnNumber < 0) || lineNumber >= this.compiled.lines) return;
    const isBody = start?.lineNumber === 0 && start.columnNumber < 0;
    const place = `${lineNumber}:${depth}:${name}`;
    if (place === this.place) return;
    this.place = place;
    const shown = isBody ? '' : name.slice(0, NAME_MAX_CHARS) || '(anonymous)';
    this.steps.push({ line: lineNumber + 1, function: shown });
  }

  text() {
    const whole = JSON.stringify(this.recorded());
    if (Buffer.byteLength(whole) <= RECORD_MAX_BYTES) return whole;
    const { console_dropped: lines = 0, profile_dropped: functions = 0, steps_dropped: steps = 0 } = this.recorded();
    return JSON.stringify({
      console_dropped: lines + (this.console?.lines.length ?? 0),
      profile_dropped: functions + (this.profile.profile?.length ?? 0),
      steps_dropped: steps + this.steps.length,
    });
  }

  recorded() {
    return {
      ...this.console?.tell(),
      ...this.profile,
      ...(this.asked.steps ? { steps: this.steps, steps_dropped: this.stepsDropped } : {}),
    };
  }
}

module.exports = { Recorder };
