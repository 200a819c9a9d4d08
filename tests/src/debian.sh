#!/bin/sh
# Run by mmdebstrap (see debian.rs) in the folder of a new Debian system. Downloads the packages and their dependencies
# into a repository inside the system, and configures apt to use only this repository.
#
#   debian.sh <root folder> <package>...
set -eu
root=$1
shift
debs=/var/lib/debs

chroot "$root" apt-get install -y --download-only --no-install-recommends "$@"
mkdir "$root$debs"
mv "$root"/var/cache/apt/archives/*.deb "$root$debs"
cd "$root$debs"
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s\nSize: %s\n' "$deb" "$(stat -c %s "$deb")"
    printf 'SHA256: %s\n\n' "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >Packages
rm -f "$root"/etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:$debs ./" >"$root/etc/apt/sources.list"
