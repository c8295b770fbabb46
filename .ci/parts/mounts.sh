# Sourced, never run, by what mounts. TMPDIR becomes a folder of this run's own. Every mount and loop device in it is gone at the end, whatever happened;
# the folder too, unless the run failed.
TMPDIR=$(mktemp -d)
export TMPDIR
mounts_end() {
    local status=$?
    { findmnt -rn -o TARGET || true; } | { grep -F "$TMPDIR/" || true; } | while read -r mounted; do
        # A frozen one keeps its device.
        fsfreeze -u "$mounted" 2>/dev/null || true
        umount "$mounted" || umount -l "$mounted"
    done
    losetup -n -O NAME,BACK-FILE | { grep -F "$TMPDIR/" || true; } | while read -r device _; do losetup -d "$device" || true; done
    if [ "$status" -eq 0 ]; then rm -rf "$TMPDIR"; else echo "kept: $TMPDIR"; fi
}
trap mounts_end EXIT
# Without them the status of a run that is ended from outside is 0.
trap 'exit 130' INT
trap 'exit 143' TERM
