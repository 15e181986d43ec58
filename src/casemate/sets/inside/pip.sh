# The first argument says where the packages will lie; the others are pip's.
set -eu
place=$1
shift
"$INTERPRETER" -I /code/pip.py "$@"
"$INTERPRETER" -I /code/pip.py compile "$OUT" "$place" || true
