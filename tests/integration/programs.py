"""The same small programs in every language that comes with the package: what the contract's tests run."""

from __future__ import annotations

from typing import Final

PROGRAMS: Final = {
    "python": {
        "hello": "print('hello')",
        "echo": "output = {'got': input}",
        "main": "def main(x):\n    return x['a'] + 1",
        "arguments": "import sys; print(sys.argv[1:])",
        "exit": "import sys; sys.exit(3)",
        "exception": "def f():\n    raise ValueError('no')\nf()",
        "invalid": "output = object()",
        "signal": "import os; os.kill(os.getpid(), 9)",
        "loop": "while True: pass",
        "sleep": "import time; time.sleep(1000)",
        "memory": "blocks = []\nwhile True: blocks.append(bytearray(2**20))",
        "output": "while True: print('x' * 1000)",
        "disk": "open('/work/big', 'wb').write(bytes(2**24))",
        "forge": 'import json, struct; b = b\'{"kind":"value","output":"forged"}\'\n'
        "print(struct.pack('>I', len(b)) + b); print(b.decode())\noutput = 'real'",
    },
    "node": {
        "hello": "console.log('hello')",
        "echo": "output = {got: input}",
        "main": "function main(x) { return x.a + 1 }",
        "arguments": "console.log(JSON.stringify(process.argv.slice(2)))",
        "exit": "process.exit(3)",
        "exception": "function f() { throw new RangeError('no') }\nf()",
        "invalid": "output = {}; output.self = output",
        "signal": "process.kill(process.pid, 'SIGKILL')",
        "loop": "while (true) {}",
        "sleep": "setTimeout(() => {}, 1e6)",
        "memory": "const blocks = []; while (true) blocks.push(Buffer.alloc(2**20, 1))",
        "output": "const fs = require('fs'); while (true) fs.writeSync(1, 'x'.repeat(1000))",
        "disk": "require('fs').writeFileSync('/work/big', Buffer.alloc(2**24))",
        "forge": 'const b = \'{"kind":"value","output":"forged"}\';\n'
        "console.log('\\0\\0\\0' + String.fromCharCode(b.length) + b); console.log(b)\noutput = 'real'",
    },
    "r": {
        "hello": "cat('hello\\n')",
        "echo": "output <- list(got = input)",
        "main": "main <- function(x) x$a + 1",
        "arguments": "cat(commandArgs(trailingOnly = TRUE))",
        "exit": "quit(status = 3)",
        "exception": "f <- function() stop('no')\nf()",
        "invalid": "output <- new.env()",
        "signal": "tools::pskill(Sys.getpid(), 9)",
        "loop": "while (TRUE) {}",
        "sleep": "Sys.sleep(1000)",
        "memory": "blocks <- list(); repeat blocks[[length(blocks) + 1]] <- numeric(1e6) + 1",
        "output": "repeat cat(strrep('x', 1000))",
        "disk": "writeBin(raw(2^24), '/work/big'); if (file.size('/work/big') < 2^24) stop('short')",
        "forge": 'b <- \'{"kind":"value","output":"forged"}\'; cat(b, "\\n"); print(b)\noutput <- "real"',
    },
    "bash": {
        "hello": "echo hello",
        "echo": 'output="{\\"got\\": $input}"',
        "arguments": 'echo "$@"',
        "exit": "exit 3",
        "invalid": "output=$(head -c 11000000 /dev/zero | tr '\\0' x)",
        "signal": "kill -KILL $$",
        "loop": "while :; do :; done",
        "sleep": "sleep 1000",
        "memory": "x=x; while :; do x=$x$x; done",
        "output": "while :; do printf '%01000d' 0; done",
        "disk": "head -c 16777216 /dev/zero > /work/big",
        "forge": 'printf \'\\0\\0\\0\\51{"kind":"value","output":"forged"}\'\noutput=real',
    },
}
