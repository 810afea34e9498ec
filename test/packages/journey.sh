# What an administrator does with the package, in a machine that boots twice: install, edit,
# enable, reload, upgrade with an initiator connected, reboot, remove, purge. Beside it are
# old.deb and new.deb.
set -u
export DEBIAN_FRONTEND=noninteractive
IQN=iqn.2026-11.example.odx:disks
STATE=/var/tmp/journey

step() { echo "== [$(cut -d' ' -f1 /proc/uptime) s] $*"; }
fail() {
	echo "FAILED: $*"
	systemctl status odx --no-pager
	journalctl -u odx --no-pager | tail -40
	end 1
}
end() {
	echo "status $1"
	systemctl poweroff --force --force >/dev/null
}
# wait_for COMMAND...: until it succeeds, or has failed for a minute
wait_for() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 600 ] || return 1
		sleep 0.1
	done
}
# disk LUN: the block device of a LUN that is logged in to
disk() {
	for b in /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/*; do
		[ -e "$b" ] && echo "/dev/${b##*/}"
	done
}
has_disk() { [ -b "$(disk "$1")" ]; }
login() {
	iscsiadm -m discovery -t sendtargets -p 127.0.0.1 || fail "discovery"
	iscsiadm -m node -T "$IQN" -p 127.0.0.1:3260 -o update -n node.session.auth.authmethod -v CHAP &&
		iscsiadm -m node -T "$IQN" -p 127.0.0.1:3260 -o update -n node.session.auth.username -v host &&
		iscsiadm -m node -T "$IQN" -p 127.0.0.1:3260 -o update -n node.session.auth.password -v "$(cat /etc/odx-secrets/host)" || fail "CHAP of the initiator"
	iscsiadm -m node -T "$IQN" -p 127.0.0.1:3260 --login || fail "login"
	wait_for has_disk 0 || fail "no disk"
}
pid() { systemctl show --property MainPID --value odx; }
active() { systemctl is-active --quiet odx; }

first_boot() {
	step "install"
	dpkg -i old.deb || fail "installation"
	id odx || fail "no user"
	[ "$(stat -c '%U:%G %a' /etc/odx /etc/odx/odx.yaml /etc/odx-secrets | tr '\n' ' ')" = "odx:odx 750 odx:odx 640 root:root 700 " ] || fail "$(stat -c '%U:%G %a %n' /etc/odx/*)"
	[ "$(systemctl is-enabled odx)" = disabled ] || fail "the installation enables the server"
	active && fail "the installation starts the server"
	odx config check || fail "the configuration of the package has problems"

	step "edit"
	printf '%s' '0123456789abcdef' >/etc/odx-secrets/host
	chmod 600 /etc/odx-secrets/host
	cat >/etc/odx/odx.yaml <<-EOF
		data_dir: /var/lib/odx/store
		portals: ["127.0.0.1:3260"]
		targets:
		  - name: $IQN
		    authentication:
		      users:
		        - {name: host, secret_file: /run/credentials/odx.service/secrets_host}
		    luns:
		      - {lun: 0, volume: first, size: 64MiB}
	EOF

	step "enable"
	systemctl enable --now odx || fail "start"
	active || fail "not active"
	odx status || fail "status"
	[ "$(stat -c '%U %a' /var/lib/odx)" = "odx 700" ] || fail "$(stat -c '%U %a' /var/lib/odx)"

	journalctl -u odx -p warning | grep -q "may log in under the name of any initiator" || fail "the journal has no warning"
	journalctl -u odx -p warning | grep "volume created" && fail "the journal takes everything for a warning"

	step "log in"
	login
	mkfs.ext4 -q "$(disk 0)" && mount "$(disk 0)" /mnt || fail "file system"

	step "reload"
	echo '      - {lun: 1, volume: second, size: 64MiB}' >>/etc/odx/odx.yaml
	systemctl reload odx || fail "reload"
	iscsiadm -m session --rescan >/dev/null
	wait_for has_disk 1 || fail "no second disk after the reload"
	cp -p /etc/odx/odx.yaml /tmp/good
	echo 'nonsense: true' >>/etc/odx/odx.yaml
	systemctl reload odx && fail "a wrong configuration is applied"
	active || fail "a wrong configuration ends the server"
	cp -p /tmp/good /etc/odx/odx.yaml

	step "a command that edits the configuration"
	odx lun add "$IQN" third --lun 2 --size 64MiB || fail "odx lun add"
	grep third /etc/odx/odx.yaml || fail "the file has not changed"
	[ "$(stat -c '%U:%G %a' /etc/odx/odx.yaml)" = "odx:odx 640" ] || fail "$(stat -c '%U:%G %a' /etc/odx/odx.yaml)"

	step "support bundle"
	odx support bundle /tmp/bundle.tar.gz || fail "support bundle"
	for part in log.txt config.yaml goroutines.txt check.json; do
		tar -xzOf /tmp/bundle.tar.gz --wildcards "*/$part" | grep -q . || fail "the bundle has no $part"
	done
	tar -xzOf /tmp/bundle.tar.gz | grep "$(cat /etc/odx-secrets/host)" && fail "the bundle has a secret"

	step "upgrade, with I/O"
	: >/mnt/written
	work() {
		n=0
		while [ ! -e /tmp/stop ]; do
			n=$((n + 1))
			echo "line $n" | dd of=/mnt/written bs=64k oflag=append conv=notrunc,fsync status=none || return 1
			echo $n >/tmp/lines
		done
	}
	work &
	WORK=$!
	some() { [ "$(cat /tmp/lines)" -gt 3 ]; }
	wait_for some || fail "nothing is written"
	dmesg -c >/dev/null
	before=$(pid)
	dpkg -i new.deb || fail "upgrade"
	active || fail "not active after the upgrade"
	[ "$(pid)" != "$before" ] || fail "process $before still serves"
	[ "$(readlink "/proc/$(pid)/exe")" = /usr/bin/odx ] || fail "$(readlink "/proc/$(pid)/exe") serves"
	lines=$(cat /tmp/lines)
	more() { [ "$(cat /tmp/lines)" -gt $((lines + 3)) ]; }
	wait_for more || fail "nothing is written after the upgrade"
	touch /tmp/stop
	wait $WORK || fail "a write failed"
	dmesg | grep -iE 'conn error|session recovery|i/o error' && fail "the initiator has noticed the upgrade"
	[ "$(wc -l </mnt/written)" = "$(cat /tmp/lines)" ] || fail "$(wc -l </mnt/written) lines, not $(cat /tmp/lines)"
	grep third /etc/odx/odx.yaml || fail "the upgrade has replaced the configuration"
	wc -l </mnt/written >$STATE
	umount /mnt && iscsiadm -m node -T "$IQN" --logout || fail "logout"
	systemctl restart odx || fail "restart" # the unit, too, is of the new package

	step "reboot"
	systemctl reboot
}

second_boot() {
	step "after the reboot"
	active || fail "not started at boot"
	login
	mount "$(disk 0)" /mnt || fail "mount"
	[ "$(wc -l </mnt/written)" = "$(cat $STATE)" ] || fail "$(wc -l </mnt/written) lines, not $(cat $STATE)"
	umount /mnt && iscsiadm -m node -T "$IQN" --logout || fail "logout"

	step "completion"
	bash -c '. /usr/share/bash-completion/bash_completion && _completion_loader odx
		compopt() { :; } # works only while bash itself completes
		COMP_WORDS=(odx volume delete "") COMP_CWORD=3 COMP_LINE="odx volume delete " COMP_POINT=18
		__start_odx && printf "%s\n" "${COMPREPLY[@]}"' >/tmp/completed || fail "completion"
	grep -q first /tmp/completed || fail "completion offers: $(cat /tmp/completed)"

	step "remove"
	dpkg -r odx || fail "remove"
	active && fail "the server runs on without its package"
	[ -e /etc/odx/odx.yaml ] && [ -d /var/lib/odx/store ] || fail "removing deletes the configuration or the store"

	step "purge without a terminal"
	dpkg -P odx || fail "purge"
	[ ! -e /etc/odx ] && [ ! -e /etc/odx-secrets ] || fail "the configuration is left"
	[ -d /var/lib/odx/store ] || fail "the store is deleted without a question"

	step "purge, with the question answered"
	dpkg -i new.deb || fail "installation"
	echo 'odx odx/delete_store boolean true' | debconf-set-selections
	dpkg -P odx || fail "purge"
	[ ! -e /var/lib/odx ] || fail "the store is left"
	step "done"
	end 0
}

if [ -e $STATE ]; then second_boot; else first_boot; fi
