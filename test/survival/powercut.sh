# Serves the store on /dev/vda, made there if this is the FIRST time. CHECK says
# when the store proves itself: before it is served, or while it is.
CONFIG=/etc/odx.yaml
if [ -n "$FIRST" ]; then
	mkfs.ext4 -q -F /dev/vda || fail "mkfs.ext4"
fi
mount -t ext4 /dev/vda /mnt || fail "mount"
check() {
	odx store check --config $CONFIG || fail "odx store check"
	if [ -n "$SCRUB" ]; then odx store scrub --config $CONFIG || fail "odx store scrub"; fi
}
[ "$CHECK" = before ] && check
{ odx serve --config $CONFIG 2>&1; echo "odx ended with exit status $?"; } | while read -r line; do
	echo "$line"
	case "$line" in *" is ready on "*)
		[ "$CHECK" = while ] && check
		echo SERVING
	esac
done
fail "it should serve until the power is cut"
