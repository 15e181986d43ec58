# `fetch` resolves what project.json wants and leaves a lock and a cache with all of it; no script of a package runs.
# `install` makes of those the directory that Node looks for packages in; their scripts run, and there is no network.
set -eu
PATH="$(dirname "$INTERPRETER"):$PATH"
export npm_config_userconfig=/home/guest/npmrc npm_config_cache=/work/cache npm_config_logs_max=0
export npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_loglevel=error
# npm's own waits add up to minutes for each package where there is no network.
export npm_config_fetch_retries=2 npm_config_fetch_retry_mintimeout=500 npm_config_fetch_retry_maxtimeout=2000
export npm_config_fetch_timeout=60000
mkdir project
cd project

fetch() {
    if [ "${1:-}" = offline ]; then
        export npm_config_offline=true
        "$INTERPRETER" /code/tarballs.mjs "$ARTIFACTS" "$OUT"
    else
        cp /code/project.json package.json
    fi
    npm install --package-lock-only --ignore-scripts --omit=dev
    npm ci --ignore-scripts --omit=dev --no-bin-links
    cp package.json package-lock.json "$OUT"
    [ ! -d /work/cache/_cacache ] || cp -r /work/cache/_cacache "$OUT"
}

install() {
    cp "$ARTIFACTS/package.json" "$ARTIFACTS/package-lock.json" .
    mkdir /work/cache
    [ ! -d "$ARTIFACTS/_cacache" ] || cp -r "$ARTIFACTS/_cacache" /work/cache
    chmod -R u+w /work/cache .
    npm_config_offline=true npm ci --omit=dev --foreground-scripts
    find node_modules -name .bin -prune -exec rm -rf {} +
    rm -f node_modules/.package-lock.json
    rmdir "$OUT"
    mv node_modules "$OUT"
}

"$@"
