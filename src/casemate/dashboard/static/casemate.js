// What pages do by themselves: the editor, output as it comes, copying. Texts of programs are only ever set as text.
"use strict";
(() => {
  const OUTPUT_MAX_CHARS = 262144;
  const TAB = "    ";

  // Editor ------------------------------------------------------------------------------------------
  const edit = (editor) => {
    const area = editor.querySelector("textarea");
    const gutter = editor.querySelector(".gutter");
    let lines = 0;
    let isLeaving = false;
    const number = () => {
      const count = area.value.split("\n").length;
      if (count !== lines) {
        lines = count;
        gutter.textContent = Array.from({ length: count }, (_, at) => at + 1).join("\n") + "\n\n";
      }
      gutter.scrollTop = area.scrollTop;
    };
    area.addEventListener("input", number);
    area.addEventListener("scroll", () => { gutter.scrollTop = area.scrollTop; });
    area.addEventListener("blur", () => { isLeaving = false; });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { isLeaving = true; return; }
      if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
        event.preventDefault();
        area.form.requestSubmit();
      } else if (event.key === "Tab" && !isLeaving && !event.ctrlKey && !event.altKey && !event.metaKey) {
        event.preventDefault();
        indent(area, event.shiftKey);
      } else if (event.key !== "Shift" && event.key !== "Tab") { isLeaving = false; }
    });
    number();
  };

  // Typing through the browser keeps its undo.
  const type = (area, text) => {
    if (!document.execCommand("insertText", false, text)) area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
  };

  const indent = (area, isBack) => {
    const { selectionStart: start, selectionEnd: end, value } = area;
    if (start === end && !isBack) { type(area, TAB); return; }
    const first = value.lastIndexOf("\n", start - 1) + 1;
    const before = value.slice(first, end);
    const after = before.split("\n").map((line) => (isBack ? line.replace(/^ {1,4}|^\t/, "") : line && TAB + line)).join("\n");
    if (before === after) return;
    area.setSelectionRange(first, end);
    type(area, after);
    area.setSelectionRange(isBack ? Math.max(first, start - TAB.length) : start + TAB.length, first + after.length);
  };

  // Output as it comes ------------------------------------------------------------------------------
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  const visible = (text) => text.replace(/\r\n/g, "\n").replace(UNSEEN, (char) => {
    const code = char.charCodeAt(0);
    return code < 128 ? `^${String.fromCharCode(code ^ 64)}` : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });

  const decoded = (base64) => new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)));

  class Output {
    constructor(element) {
      this.element = element;
      this.text = "";
      this.isCut = false;
      this.isWaiting = false;
    }

    add(piece) {
      const missed = piece.missed_bytes ? `\n… ${piece.missed_bytes} bytes were missed …\n` : "";
      this.text += missed + visible(piece.text ?? decoded(piece.base64));
      if (this.text.length > OUTPUT_MAX_CHARS) {
        this.text = this.text.slice(-OUTPUT_MAX_CHARS / 2);
        this.isCut = true;
      }
      if (!this.isWaiting) {
        this.isWaiting = true;
        requestAnimationFrame(() => this.show());
      }
    }

    show() {
      this.isWaiting = false;
      const { element } = this;
      const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
      element.textContent = (this.isCut ? "… the beginning is left out here …\n" : "") + this.text;
      if (isAtEnd) element.scrollTop = element.scrollHeight;
    }
  }

  const follow = (element) => {
    if (element.dataset.isFollowed) return;
    element.dataset.isFollowed = "1";
    const outputs = {};
    for (const name of ["stdout", "stderr"]) outputs[name] = new Output(element.querySelector(`[data-stream=${name}]`));
    const state = element.querySelector("[data-state]");
    const source = new EventSource(element.dataset.follow);
    const isHere = () => element.isConnected || (source.close(), false);
    source.addEventListener("started", () => { if (isHere()) state.textContent = "running"; });
    for (const name of ["stdout", "stderr"]) {
      source.addEventListener(name, (event) => { if (isHere()) outputs[name].add(JSON.parse(event.data)); });
    }
    source.addEventListener("result", () => {
      source.close();
      if (element.isConnected) htmx.ajax("GET", element.dataset.outcome, { target: element, swap: "outerHTML" });
    });
    source.addEventListener("error", () => {
      if (isHere() && source.readyState === EventSource.CLOSED) state.textContent = "not followed any more; load the page again";
    });
  };

  // The rest ----------------------------------------------------------------------------------------
  const process = (root) => {
    for (const each of root.querySelectorAll("[data-editor]:not([data-is-edited])")) { each.dataset.isEdited = "1"; edit(each); }
    for (const each of root.querySelectorAll("[data-follow]")) follow(each);
  };

  const tell = (element, isLive, words) => {
    const hint = element.parentElement.querySelector(".live");
    if (!hint) return;
    hint.classList.toggle("off", !isLive);
    hint.querySelector("[data-live-words]").textContent = words;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try { await navigator.clipboard.writeText(field.value); } catch { document.execCommand("copy"); }
    button.textContent = "Copied";
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
    // A second click makes no second key. htmx sees to its own forms.
    const button = event.target.querySelector("button[type=submit]");
    if (!event.defaultPrevented && button && !event.target.hasAttribute("hx-post")) setTimeout(() => { button.disabled = true; });
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) for (const each of document.querySelectorAll("button[disabled]")) each.disabled = false;
  });
  document.addEventListener("htmx:after:swap", () => process(document));
  document.addEventListener("htmx:sse:after:connection", (event) => tell(event.target, true, "This page follows what happens."));
  for (const name of ["htmx:sse:error", "htmx:sse:close"]) {
    document.addEventListener(name, (event) => {
      tell(event.target, false, "Not connected; trying again.");
      if (event.detail.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    });
  }
  process(document);
})();
