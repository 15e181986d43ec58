# `fetch NAME…` leaves Debian's packages of these names, and of all that they need and the machine has not.
# `resolve NAME…` leaves, of a directory of source tarballs and Debian packages, those that are needed.
# `install NAME…` makes a library of them: Debian's are unpacked, sources are compiled. There is no network then.
# `probe NAME…` loads them.
set -eu

apt=/home/guest/apt

fetch() {
    mkdir -p $apt/state/lists/partial $apt/cache/archives/partial
    export APT_CONFIG=$apt/apt.conf
    apt-get --quiet=2 update
    debian=
    for name; do
        debian="$debian r-cran-$(printf %s "$name" | tr '[:upper:]' '[:lower:]')"
    done
    apt-get --quiet=2 --yes --no-install-recommends --print-uris install $debian > uris
    cd "$OUT"
    sed "s/^'[^']*' \([^_]*\)_.*/\1/" ../uris | xargs --no-run-if-empty apt-get --quiet=2 download
}

resolve() {
    repository=/work/repository/src/contrib
    mkdir -p $repository
    find "$ARTIFACTS" -name '*.deb' -exec cp {} "$OUT" \;
    find "$ARTIFACTS" -name '*.tar.gz' -exec cp {} $repository \;
    "$INTERPRETER" --vanilla --no-echo --file=/code/resolve.R --args $repository "$OUT" "$@"
}

install() {
    library=/usr/lib/R/site-library
    for package in "$ARTIFACTS"/*.deb; do
        [ -e "$package" ] || continue
        dpkg-deb --fsys-tarfile "$package" > /work/package.tar
        if tar -tf /work/package.tar | grep -v '/$' | grep -qvE "^\./usr/(lib/R/site-library|share/(doc|man|lintian))/"; then
            echo "$(basename "$package") holds more than an R package; install it on the machine" >&2
            exit 1
        fi
        if tar -tf /work/package.tar | grep -q "^\.$library/."; then
            tar -xf /work/package.tar --no-same-permissions --strip-components=5 -C "$OUT" ".$library"
        fi
    done
    mkdir -p /work/repository/src
    ln -s "$ARTIFACTS" /work/repository/src/contrib
    export R_LIBS="$OUT" _R_SHLIB_STRIP_=true
    "$INTERPRETER" --vanilla --no-echo --file=/code/install.R --args "$OUT" "$@"
}

probe() {
    "$INTERPRETER" --vanilla --no-echo --file=/code/probe.R --args "$@"
}

"$@"
