// What is recorded of a program in Node: what it prints, by the streams that it prints to, and its functions, by Node's
// own inspector, of which the program sees nothing.
'use strict';

const inspector = require('inspector');
const { Console, lineFinder, profileOf, timesOf } = require('./debug.js');

const VALUE_MAX_BYTES = 10 * 1024 * 1024;

class Recorder {
  constructor(asked, filename) {
    this.filename = filename;
    this.console = asked.console ? new Console() : null;
    this.isProfiled = asked.profile;
    this.session = new inspector.Session();
    this.session.connect();
    this.level = undefined;
    this.shift = 0;
    this.profile = {};
  }

  begin(code, source) {
    this.source = source;
    if (this.console !== null) this.listen();
    if (!this.isProfiled) return;
    this.session.post('Profiler.enable');
    this.session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    this.session.post('Profiler.start');
  }

  // The inspector is told of each call of the console right before that prints.
  listen() {
    this.session.on('Runtime.consoleAPICalled', ({ params }) => {
      if (this.level !== 'trace') this.level = params.type; // which is printed as an error
    });
    this.session.post('Runtime.enable');
    this.hear(process.stdout, 1);
    this.hear(process.stderr, 2);
  }

  hear(stream, fd) {
    const { write } = stream;
    const recorder = this;
    stream.write = function (chunk, ...rest) {
      const { level } = recorder;
      recorder.level = undefined;
      const written = write.call(this, chunk, ...rest);
      recorder.console.note(fd, typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString(), level);
      return written;
    };
  }

  end() {
    if (this.isProfiled) this.takeProfile();
    this.session.disconnect();
  }

  takeProfile() {
    let coverage = [];
    this.session.post('Profiler.takePreciseCoverage', (error, answer) => {
      const script = answer?.result.filter(({ url }) => this.isOwn(url)).at(-1);
      coverage = script?.functions ?? [];
    });
    this.session.post('Profiler.stop', (error, answer) => {
      const nodes = answer === undefined ? [] : nodesOf(answer.profile).map((node) => this.named(node));
      this.profile = profileOf({ file: this.filename, coverage, nodes, lineAt: lineFinder(this.source) });
    });
  }

  isOwn(url) {
    return url === this.filename || url === `file://${this.filename}`;
  }

  named(node) {
    return this.isOwn(node.file) ? { ...node, file: this.filename } : node;
  }

  // The reply with the record in it; what does not fit beside an output is only counted.
  joined(text) {
    const recorded = { ...this.console?.tell(), ...this.profile };
    const counted = {
      console_dropped: (recorded.console_dropped ?? 0) + (recorded.console?.length ?? 0),
      profile_dropped: (recorded.profile_dropped ?? 0) + (recorded.profile?.length ?? 0),
    };
    for (const record of [recorded, counted].map((each) => JSON.stringify(each))) {
      const whole = `${text.slice(0, -1)},"debug":${record}}`;
      if (Buffer.byteLength(whole) < VALUE_MAX_BYTES) return whole;
    }
    return text;
  }
}

// Lines of the inspector begin with 0.
function nodesOf(profile) {
  const times = timesOf(profile);
  const inner = new Set(profile.nodes.flatMap(({ children }) => children ?? []));
  return profile.nodes.map(({ id, children, callFrame }) => ({
    id,
    children: children ?? [],
    isRoot: !inner.has(id),
    name: callFrame.functionName,
    file: callFrame.url,
    line: callFrame.lineNumber + 1,
    own_us: times.get(id) ?? 0,
  }));
}

module.exports = { Recorder };
