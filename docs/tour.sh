#!/usr/bin/env bash
# What `make run` shows once the cluster is up: a real tree, imported past the mount, looked at
# through the mount with ordinary tools. Usage: docs/tour.sh DIR MNT (SUPERFS and PYTHON are
# the programs to use). Running it again imports nothing twice.
set -euo pipefail

dir=$1 mnt=$2
superfs=${SUPERFS:-superfs}
python=${PYTHON:-python3}

show() { printf '\n\033[1m$ %s\033[0m\n' "$1"; bash -c "$1"; }

library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
if [ ! -d "$mnt/stdlib" ]; then
  # Under another name first: an interrupted run never looks like a finished one, and the next one
  # imports over what is there.
  printf '\n\033[1m$ superfs import %s /stdlib.partial\033[0m\n' "$library"
  "$superfs" import --dir "$dir" --exclude site-packages --exclude dist-packages \
    "$library" /stdlib.partial
  mv "$mnt/stdlib.partial" "$mnt/stdlib"
fi

show "ls -l '$mnt/stdlib' | head -n 8"
show "find '$mnt/stdlib' -name '*.py' | wc -l"
show "grep -rl 'class .*Error' '$mnt/stdlib/asyncio' --include='*.py'"
show "du -sh '$mnt/stdlib'"
show "df -h '$mnt'"

cat <<END

It is mounted at $mnt and stays so. Things to try next:
  cp -r docs '$mnt/' && ls -l '$mnt/docs'     any program works on it
  $superfs ls -l --dir '$dir' /stdlib/json    the same files, past the mount
  $superfs status --dir '$dir'                what is running
  $superfs fsck --dir '$dir'                  check everything
  make stop                                   unmount and stop; \`make run\` brings it all back
END
