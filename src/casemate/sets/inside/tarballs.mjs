// Writes a package.json that wants packages from tarballs in a directory, and has every dependency on one of them
// met by its tarball. Those are copied beside the lock, where they lie under the same path when it is used.
import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const [artifacts, out] = process.argv.slice(2);
const { dependencies: wanted } = JSON.parse(readFileSync('/code/project.json', 'utf8'));
const files = {};
for (const name of readdirSync(artifacts).filter((each) => /\.(tgz|tar\.gz)$/.test(each))) {
  const path = `${artifacts}/${name}`;
  const text = execFileSync('tar', ['-xzOf', path, '--wildcards', '--no-wildcards-match-slash', '*/package.json']);
  const { name: found } = JSON.parse(text);
  if (found in files) throw new Error(`two tarballs hold ${found}`);
  files[found] = `file:${path}`;
  copyFileSync(path, `${out}/${name}`);
}
const missing = Object.keys(wanted).filter((name) => !(name in files));
if (missing.length > 0) throw new Error(`no tarball holds ${missing.join(', ')}`);
const dependencies = Object.fromEntries(Object.keys(wanted).map((name) => [name, files[name]]));
writeFileSync('package.json', JSON.stringify({ name: 'set', private: true, dependencies, overrides: files }));
