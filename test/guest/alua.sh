
# multipath with the kernel's ALUA handler over two paths to one LUN, of which the
# configuration of the target wants the one by port $A: a failover to the other and
# back leaves the states as they are configured.
step "two paths of different states"
iscsid || fail "iscsid"
for port in $A $B; do
	iscsiadm -m node -T "$IQN" -p "10.0.2.2:$port,$([ "$port" = "$A" ] && echo 1 || echo 2)" -o new || fail "node record"
done
for setting in timeo.replacement_timeout=1 initial_login_retry_max=2; do
	iscsiadm -m node -T "$IQN" -o update -n node.session.${setting%%=*} -v ${setting#*=} || fail "$setting"
done
start_multipath '
 path_grouping_policy group_by_prio
 prio alua
 failback immediate
 path_checker tur
 polling_interval 1
 max_polling_interval 1
 no_path_retry queue' || fail "multipathd"
iscsiadm -m node -T "$IQN" --login || fail "login"
paths() { multipathd show paths raw format '%d %t %o' | grep -c "active running"; }
two() { [ "$(paths)" = 2 ]; }
one() { [ "$(paths)" = 1 ]; }
wait_for two || { multipathd show paths; fail "not two paths"; }
map() { MAP=$(ls /dev/mapper/[!c]*) && [ -b "$MAP" ]; }
wait_for map || { multipath -v3 -ll; fail "no multipath device"; }
multipath -ll

# states: of the target port groups, by any path that works
states() { for d in /dev/sd?; do sg_rtpg -d "$d" 2>/dev/null && return; done | grep -o 'active/[a-z ]*optimized' | tr '\n' ','; }
configured() { [ "$(states)" = "active/optimized,active/non optimized," ]; }
write() { dd if=/dev/urandom of="$MAP" bs=64k count=16 oflag=direct status=none; }
configured || fail "states: $(states)"
write || fail "write"
for path in a b; do
	step "path $path is cut"
	ask cut $path || fail "cut"
	wait_for one || { multipath -ll; fail "the cut path is not noticed"; }
	write || fail "write by the other path"
	step "path $path is back"
	ask mend $path || fail "mend"
	wait_for two || wait_for two || { multipath -ll; fail "the path does not come back"; }
	write || fail "write by both"
	configured || { multipath -ll; fail "states: $(states)"; }
done
multipath -ll

step "logout"
multipath -F || fail "the map is in use"
logout "$IQN"
step "done"
