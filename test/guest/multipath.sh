# fio writes and verifies on a multipath device over two paths to one LUN,
# behind ports $A and $B of the host, while the host cuts one after the other.
step "two paths"
iscsid || fail "iscsid"
for port in $A $B; do
	iscsiadm -m node -T "$IQN" -p "10.0.2.2:$port" -o new || fail "node record"
done
# A dead path is to be given up soon, and to be found again soon.
for setting in timeo.replacement_timeout=1 initial_login_retry_max=2; do
	iscsiadm -m node -T "$IQN" -o update -n node.session.${setting%%=*} -v ${setting#*=} || fail "$setting"
done
start_multipath '
 path_grouping_policy multibus
 path_checker tur
 polling_interval 1
 max_polling_interval 1
 no_path_retry queue' || fail "multipathd"
iscsiadm -m node -T "$IQN" --login || fail "login"
paths() { multipathd show paths raw format '%d %t %o' | grep -c "active running"; }
two() { [ "$(paths)" = 2 ]; }
wait_for two || { multipathd show paths; fail "not two paths"; }
map() { MAP=$(ls /dev/mapper/[!c]*) && [ -b "$MAP" ]; }
wait_for map || { multipath -v3 -ll; fail "no multipath device"; }
multipath -ll

keep_verifying "$MAP" 6m
step "fio works"
rounds 2 # of which one has begun since
for path in a b; do
	step "path $path is cut"
	ask cut $path || fail "cut"
	one() { [ "$(paths)" = 1 ]; }
	wait_for one || { multipath -ll; fail "the cut path is not noticed"; }
	rounds 2
	step "path $path is back"
	ask mend $path || fail "mend"
	wait_for two || wait_for two || { multipath -ll; fail "the path does not come back"; }
	rounds 2
done
end_verifying
multipath -ll

step "logout"
multipath -F || fail "the map is in use"
logout "$IQN"
step "done"
