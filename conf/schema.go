package conf

import "go.yaml.in/yaml/v3"

// The schema of the file. Every value is the text of a YAML scalar, or nil if absent,
// so that errors speak of iSCSI and storage, not of YAML types. From the tags come the
// JSON Schema, the defaults that Effective shows, and the comparison of Diff:
//
//	is       what the value is, for the JSON Schema: see valueSchema
//	auto     in words, what the value is then
//	need     present if the key is mandatory
//	default  the value if the key is absent; none if it depends on other keys, the
//	         machine or the store
//	class    when a change applies: once, login or restart; why: what prevents a change
//	         without a restart
//	list     of a list: the key that names its entries; or set, if their order means
//	         nothing; none: the order matters
//	items    the least number of entries of a list that is present, and the most
//	part     present if an absent part is not the same as one full of defaults
type (
	fileConfig struct {
		DataDir *string       `yaml:"data_dir" is:"path" need:"" class:"restart" why:"the open store cannot be exchanged for another one"`
		Ceph    fileCeph      `yaml:"ceph" class:"restart" why:"the open store cannot be exchanged for another one"`
		Portals []*filePortal `yaml:"portals" need:"" list:"address" class:"once" items:"1"`
		Targets []fileTarget  `yaml:"targets" need:"" list:"name" class:"once" items:"1"`
		Views   []fileView    `yaml:"views" list:"name" class:"once"`

		Discovery fileDiscovery `yaml:"discovery" class:"once"`
		Copy      fileCopy      `yaml:"copy" class:"once"`

		Memory *string    `yaml:"memory" is:"size 128MiB" class:"restart" auto:"1GiB, or three quarters of the memory of the machine if that is less" why:"memory is divided at the start"`
		Store  fileStore  `yaml:"store" class:"once"`
		Limits fileLimits `yaml:"limits" class:"once"`
		QoS    fileQoS    `yaml:"qos" class:"once"`
		Tokens fileTokens `yaml:"tokens" class:"once"`
		API    fileAPI    `yaml:"api" part:"" class:"once"`
		Peers  []filePeer `yaml:"peers" list:"name" class:"once"`
		Audit  fileAudit  `yaml:"audit" part:"" class:"once"`
		Log    fileLog    `yaml:"log" class:"once"`

		Metrics fileMetrics `yaml:"metrics" part:"" class:"once"`
		Alerts  []fileAlert `yaml:"alerts" list:"name" class:"once"`

		Snapshots []fileSnapshotPolicy `yaml:"snapshots" list:"name" class:"once"`
		Replicas  []fileReplica        `yaml:"replicas" list:"name" class:"once"`
	}
	// filePortal can also be a scalar, the address.
	filePortal struct {
		Address   *string `yaml:"address" is:"portal" need:"" class:"once"`
		Advertise *string `yaml:"advertise" is:"address" class:"once"`
	}
	fileCeph struct {
		Conf    *string `yaml:"conf" is:"path" class:"restart" auto:"as Ceph's own programs find it"`
		User    *string `yaml:"user" is:"cephuser" class:"restart" auto:"client.odx"`
		Keyring *string `yaml:"keyring" is:"path" class:"restart" auto:"what the configuration of Ceph says"`
		RunDir  *string `yaml:"run_dir" is:"path" class:"restart" auto:"/run/odx"`

		Addresses []fileCephAddress `yaml:"addresses" list:"address" class:"restart" items:"1"`

		Shards *string        `yaml:"shards" is:"int 1 64" class:"restart" auto:"one store without nodes"`
		Nodes  []fileCephNode `yaml:"nodes" list:"name" class:"once" items:"1 32"`
	}
	fileCephNode struct {
		Name    *string `yaml:"name" is:"node" need:"" class:"once"`
		Address *string `yaml:"address" is:"ip" need:"" class:"once"`
	}
	fileCephAddress struct {
		Address   *string `yaml:"address" is:"prefix" need:"" class:"restart"`
		Interface *string `yaml:"interface" is:"interface" need:"" class:"restart"`
		Shard     *string `yaml:"shard" is:"int 0 63" class:"restart" auto:"0"`
	}
	fileCopy struct {
		Rules []fileCopyRule `yaml:"rules" class:"once" items:"1"`
	}
	fileCopyRule struct {
		Initiators []*string `yaml:"initiators" is:"pattern" list:"set" class:"once" items:"1"`
		From       []*string `yaml:"from" is:"media" list:"set" class:"once" items:"1"`
		To         []*string `yaml:"to" is:"media" list:"set" class:"once" items:"1"`
		Allow      *string   `yaml:"allow" is:"bool" need:"" class:"once"`
	}
	fileTarget struct {
		Name *string   `yaml:"name" is:"name" need:"" class:"once"`
		LUNs []fileLUN `yaml:"luns" list:"lun" class:"once"`

		Shard *string `yaml:"shard" is:"int 0 63" class:"once" auto:"0"`

		PortalGroups []*string     `yaml:"portal_groups" is:"int 1 65535" list:"set" class:"once"`
		Paths        []filePath    `yaml:"paths" list:"portal_group" class:"once"`
		SetPaths     *string       `yaml:"initiators_set_paths" is:"bool" auto:"true, or false if paths is given" class:"once"`
		Redirect     *fileRedirect `yaml:"redirect" class:"once"`

		Authentication fileAuthentication `yaml:"authentication" part:"" class:"once"`
		Access         []fileAccess       `yaml:"access" class:"once" items:"1"`
	}
	filePath struct {
		PortalGroup *string `yaml:"portal_group" is:"int 1 65535" need:"" class:"once"`
		State       *string `yaml:"state" is:"enum optimized nonoptimized standby unavailable" default:"optimized" class:"once"`
		Preferred   *string `yaml:"preferred" is:"bool" default:"false" class:"once"`
	}
	fileRedirect struct {
		To        *string `yaml:"to" is:"address" need:"" class:"once"`
		Permanent *string `yaml:"permanent" is:"bool" default:"false" class:"once"`
	}
	fileDiscovery struct {
		Authentication fileAuthentication `yaml:"authentication" part:"" class:"once"`
	}
	fileAuthentication struct {
		Required   *string     `yaml:"required" is:"bool" default:"true" class:"once"`
		Users      []fileUser  `yaml:"users" need:"" list:"name" class:"once" items:"1"`
		Mutual     *fileMutual `yaml:"mutual" class:"once"`
		Algorithms []*string   `yaml:"algorithms" is:"enum SHA3-256 SHA256 SHA1 MD5" list:"set" class:"once" items:"1"`
	}
	fileUser struct {
		Name       *string   `yaml:"name" is:"chapname" need:"" class:"once"`
		Secret     *string   `yaml:"secret" is:"secret" class:"once"`
		SecretFile *string   `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv  *string   `yaml:"secret_env" is:"env" class:"once"`
		Initiators []*string `yaml:"initiators" is:"pattern" list:"set" class:"once" items:"1"`
	}
	fileMutual struct {
		Name       *string `yaml:"name" is:"chapname" need:"" class:"once"`
		Secret     *string `yaml:"secret" is:"secret" class:"once"`
		SecretFile *string `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv  *string `yaml:"secret_env" is:"env" class:"once"`
	}
	fileLogin struct {
		Name       *string     `yaml:"name" is:"chapname" need:"" class:"once"`
		Secret     *string     `yaml:"secret" is:"secret" class:"once"`
		SecretFile *string     `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv  *string     `yaml:"secret_env" is:"env" class:"once"`
		Mutual     *fileMutual `yaml:"mutual" class:"once"`
	}
	fileAccess struct {
		Initiators []*string       `yaml:"initiators" is:"pattern" list:"set" class:"once" items:"1"`
		Addresses  []*string       `yaml:"addresses" is:"network" list:"set" class:"once" items:"1"`
		LUNs       []fileMappedLUN `yaml:"luns" list:"lun" class:"once" items:"1"`
		ReadOnly   *string         `yaml:"read_only" is:"bool" default:"false" class:"once"`
		Dedup      *string         `yaml:"dedup" is:"bool" default:"true" class:"once"`
	}
	fileMappedLUN struct {
		LUN      *string `yaml:"lun" is:"int 0 16383" need:"" class:"once"`
		As       *string `yaml:"as" is:"int 0 16383" class:"once" auto:"the number in lun"`
		ReadOnly *string `yaml:"read_only" is:"bool" default:"false" class:"once"`
	}
	fileAPI struct {
		Listen      *string         `yaml:"listen" is:"listen" need:"" class:"once"`
		Secret      *string         `yaml:"secret" is:"secret" class:"once"`
		SecretFile  *string         `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv   *string         `yaml:"secret_env" is:"env" class:"once"`
		Secrets     []fileAPISecret `yaml:"secrets" list:"name" class:"once" items:"1"`
		Certificate *string         `yaml:"certificate" is:"path" class:"once"`
		PrivateKey  *string         `yaml:"private_key" is:"path" class:"once"`
	}
	fileAPISecret struct {
		Name       *string `yaml:"name" is:"label" need:"" class:"once"`
		Role       *string `yaml:"role" is:"enum read operate administer peer" need:"" class:"once"`
		Secret     *string `yaml:"secret" is:"secret" class:"once"`
		SecretFile *string `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv  *string `yaml:"secret_env" is:"env" class:"once"`
	}
	filePeer struct {
		Name        *string   `yaml:"name" is:"label" need:"" class:"once"`
		Store       *string   `yaml:"store" is:"storeid" need:"" class:"once"`
		Addresses   []*string `yaml:"addresses" is:"url" need:"" list:"set" class:"once" items:"1"`
		CA          *string   `yaml:"ca" is:"path" class:"once"`
		Secret      *string   `yaml:"secret" is:"secret" class:"once"`
		SecretFile  *string   `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv   *string   `yaml:"secret_env" is:"env" class:"once"`
		Certificate *string   `yaml:"certificate" is:"path" class:"once"`
		PrivateKey  *string   `yaml:"private_key" is:"path" class:"once"`
		Accept      *string   `yaml:"accept" is:"path" class:"once"`
		ReadBytes   *string   `yaml:"read_bytes_per_s" is:"size 64KiB" class:"once" auto:"no limit"`
	}
	fileAudit struct {
		File    *string `yaml:"file" is:"path" need:"" class:"once"`
		MaxSize *string `yaml:"max_size" is:"size 1MiB 1GiB" default:"16MiB" class:"once"`
		Keep    *string `yaml:"keep" is:"int 1 1000" default:"8" class:"once"`
	}
	fileLUN struct {
		LUN     *string `yaml:"lun" is:"int 0 16383" need:"" class:"once"`
		Volume  *string `yaml:"volume" is:"volume" class:"once"`
		File    *string `yaml:"file" is:"file" class:"once"`
		Backing *string `yaml:"backing" is:"backing" class:"once"`
		View    *string `yaml:"view" is:"volume" class:"once"`

		Login *fileLogin `yaml:"login" class:"once"`

		Size      *string  `yaml:"size" is:"size 512 1PiB 512" class:"once"`
		BlockSize *string  `yaml:"block_size" is:"enum 512 4096" default:"512" why:"for a medium that stays a LUN; remove the LUN with one reload, and add it with the next" class:"restart"`
		ReadOnly  *string  `yaml:"read_only" is:"bool" default:"false" class:"once"`
		Dedup     *string  `yaml:"dedup" is:"bool" default:"true" class:"once"`
		QoS       fileRate `yaml:"qos" class:"once"`

		UnmapGranularity *string `yaml:"unmap_granularity" is:"power 4KiB 1MiB" class:"once" auto:"4KiB"`
		Identity         *string `yaml:"identity" is:"identity" class:"once" auto:"that of the medium"`
	}
	// fileRate is a limit of a rate.
	fileRate struct {
		IOPS       *string `yaml:"iops" is:"int 1 100000000" class:"once" auto:"no limit"`
		IOPSBurst  *string `yaml:"iops_burst" is:"int 1 100000000" class:"once" auto:"what iops gives in a tenth of a second"`
		BytesPerS  *string `yaml:"bytes_per_s" is:"size 64KiB" class:"once" auto:"no limit"`
		BytesBurst *string `yaml:"bytes_burst" is:"size 64KiB" class:"once" auto:"what bytes_per_s gives in a tenth of a second"`
	}
	fileQoS struct {
		Initiators []fileInitiatorQoS `yaml:"initiators" class:"once" items:"1"`
		LUNs       []fileLUNQoS       `yaml:"luns" class:"once" items:"1"`
		Background fileRate           `yaml:"background" class:"once"`
	}
	fileInitiatorQoS struct {
		Initiators []*string `yaml:"initiators" is:"pattern" need:"" list:"set" class:"once" items:"1"`
		IOPS       *string   `yaml:"iops" is:"int 1 100000000" class:"once"`
		IOPSBurst  *string   `yaml:"iops_burst" is:"int 1 100000000" class:"once"`
		BytesPerS  *string   `yaml:"bytes_per_s" is:"size 64KiB" class:"once"`
		BytesBurst *string   `yaml:"bytes_burst" is:"size 64KiB" class:"once"`
	}
	fileLUNQoS struct {
		Target     *string   `yaml:"target" is:"name" need:"" class:"once"`
		LUN        *string   `yaml:"lun" is:"int 0 16383" need:"" class:"once"`
		Initiators []*string `yaml:"initiators" is:"pattern" need:"" list:"set" class:"once" items:"1"`
		IOPS       *string   `yaml:"iops" is:"int 1 100000000" class:"once"`
		IOPSBurst  *string   `yaml:"iops_burst" is:"int 1 100000000" class:"once"`
		BytesPerS  *string   `yaml:"bytes_per_s" is:"size 64KiB" class:"once"`
		BytesBurst *string   `yaml:"bytes_burst" is:"size 64KiB" class:"once"`
	}
	fileStore struct {
		Capacity  *string `yaml:"capacity" is:"size 256MiB" class:"restart" auto:"the size of the file system" why:"the reserve on the disk has been made for it"`
		Cache     *string `yaml:"cache" is:"size 16MiB" class:"restart" auto:"a share of memory" why:"memory is divided at the start"`
		Dedup     *string `yaml:"dedup" is:"bool" default:"true" class:"once"`
		DedupUnit *string `yaml:"dedup_unit" is:"power 4KiB 64KiB" class:"restart" auto:"that of the store" why:"it is fixed when the store is created"`

		CleanIO       *string `yaml:"clean_io_mib_per_s" is:"int 1 1048576" default:"64" class:"once"`
		Copies        *string `yaml:"metadata_copies" is:"int 1 2" default:"2" class:"restart" why:"the open store keeps its number of copies"`
		ScrubEvery    *string `yaml:"scrub_every" is:"interval" default:"30d" class:"once"`
		ScrubIO       *string `yaml:"scrub_io_mib_per_s" is:"int 1 1048576" default:"32" class:"once"`
		SoftThreshold *string `yaml:"soft_threshold" is:"int 0 99" default:"90" class:"once"`
	}
	fileLimits struct {
		Sessions              *string `yaml:"sessions" is:"int 1 65534" default:"1024" class:"once"`
		SessionsPerInitiator  *string `yaml:"sessions_per_initiator" is:"int 1 65534" default:"256" class:"once"`
		ConnectionsPerSession *string `yaml:"connections_per_session" is:"int 1 65535" default:"4" class:"login"`
		Connections           *string `yaml:"connections" is:"int 1 1048576" class:"once" auto:"1024, or what memory allows"`
		Logins                *string `yaml:"logins" is:"int 1 1048576" class:"once" auto:"256, or what memory allows"`
		LoginsPerAddress      *string `yaml:"logins_per_address" is:"int 1 1048576" class:"once" auto:"64, or half of logins"`
		LoginTimeout          *string `yaml:"login_timeout" is:"duration" default:"15s" class:"once"`
		Commands              *string `yaml:"commands" is:"int 1 65536" default:"128" class:"login"`
		DataSegment           *string `yaml:"data_segment" is:"size 512 16777215" default:"256KiB" class:"login"`
		MaxBurst              *string `yaml:"max_burst" is:"size 512 16777215" class:"login" auto:"1MiB, or first_burst if that is more"`
		FirstBurst            *string `yaml:"first_burst" is:"size 512 16777215" class:"login" auto:"256KiB, or max_burst if that is less"`
		Buffers               *string `yaml:"buffers" is:"size 32MiB" class:"restart" auto:"a share of memory" why:"memory is divided at the start"`
		PingAfter             *string `yaml:"ping_after" is:"ping" default:"15s" class:"once"`
		PingTimeout           *string `yaml:"ping_timeout" is:"duration" default:"15s" class:"once"`
		Snapshots             *string `yaml:"snapshots" is:"int 1 1000000" default:"10000" class:"once"`
	}
	fileTokens struct {
		Max               *string         `yaml:"max" is:"int 1 10000000" default:"100000" class:"once"`
		MaxPerInitiator   *string         `yaml:"max_per_initiator" is:"int 1 10000000" class:"once" auto:"no limit of its own"`
		Memory            *string         `yaml:"memory" is:"size 1MiB" class:"once" auto:"a share of memory"`
		Held              *string         `yaml:"held" is:"size 1MiB" class:"once" auto:"no limit"`
		Size              *string         `yaml:"size" is:"size 1MiB" default:"1TiB" class:"once"`
		DigestSize        *string         `yaml:"digest_size" is:"size 1MiB" default:"4GiB" class:"once"`
		HashLifetime      *string         `yaml:"hash_lifetime_h" is:"int 1 8760" default:"24" class:"once"`
		MinInactivity     *string         `yaml:"min_inactivity" is:"duration" default:"1s" class:"once"`
		DefaultInactivity *string         `yaml:"default_inactivity" is:"duration" default:"1m0s" class:"once"`
		MaxInactivity     *string         `yaml:"max_inactivity" is:"duration" default:"10m0s" class:"once"`
		UseRecords        *string         `yaml:"use_records_per_s" is:"int 1 1000000" default:"100" class:"once"`
		WhenFull          *string         `yaml:"when_full" is:"enum evict refuse" default:"evict" class:"once"`
		UnderPressure     *string         `yaml:"under_pressure" is:"enum give_up keep" default:"give_up" class:"once"`
		Deletion          *string         `yaml:"deletion" is:"enum mandatory hint" default:"mandatory" class:"once"`
		RunningCopy       *string         `yaml:"running_copy" is:"enum finish abort" default:"finish" class:"once"`
		Unmapped          *string         `yaml:"unmapped" is:"enum allow lower refuse" default:"allow" class:"once"`
		Access            *string         `yaml:"access" is:"right" default:"anyone" class:"once"`
		Groups            []fileGroup     `yaml:"groups" list:"name" class:"once"`
		Rules             []fileTokenRule `yaml:"rules" class:"once"`
	}
	fileGroup struct {
		Name       *string   `yaml:"name" is:"label" need:"" class:"once"`
		Initiators []*string `yaml:"initiators" is:"pattern" list:"set" class:"once" items:"1"`
	}
	fileTokenRule struct {
		Initiator *string `yaml:"initiator" is:"pattern" class:"once"`
		Use       *string `yaml:"use" is:"enum scsi api" class:"once"`
		Priority  *string `yaml:"priority" is:"int -100 100" default:"0" class:"once"`
		Access    *string `yaml:"access" is:"right" class:"once"`
	}
	fileView struct {
		Name      *string        `yaml:"name" is:"volume" need:"" class:"once"`
		Size      *string        `yaml:"size" is:"size 512 1PiB" class:"once"`
		Partition *filePartition `yaml:"partition" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Stripe    *fileStripe    `yaml:"stripe" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Mirror    *fileLegs      `yaml:"mirror" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Cache     *fileCache     `yaml:"cache" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Verify    *fileOver      `yaml:"verify" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Origin    *fileOver      `yaml:"origin" class:"restart" why:"remove the view with one reload, and add it with the next"`
		Snapshot  *fileOver      `yaml:"snapshot" class:"restart" why:"remove the view with one reload, and add it with the next"`
	}
	filePartition struct {
		Of        *string `yaml:"of" is:"device" need:"" class:"restart"`
		Number    *string `yaml:"number" is:"int 1 8192" need:"" class:"restart"`
		BlockSize *string `yaml:"block_size" is:"enum 512 4096" default:"512" class:"restart"`
	}
	fileStripe struct {
		Legs []*string `yaml:"legs" is:"device" need:"" class:"restart" items:"2 64"`
		Unit *string   `yaml:"unit" is:"size 4KiB 1GiB 4KiB" default:"64KiB" class:"restart"`
	}
	fileLegs struct {
		Legs []*string `yaml:"legs" is:"device" need:"" class:"restart" items:"2 64"`
	}
	fileCache struct {
		Of     *string `yaml:"of" is:"device" need:"" class:"restart"`
		Memory *string `yaml:"memory" is:"size 1MiB" default:"64MiB" class:"restart"`
		Mode   *string `yaml:"mode" is:"enum write-through write-back" default:"write-through" class:"restart"`
	}
	fileOver struct {
		Of *string `yaml:"of" is:"device" need:"" class:"restart"`
	}
	fileLog struct {
		Level  *string `yaml:"level" is:"enum debug info warn error" default:"info" class:"once"`
		Format *string `yaml:"format" is:"enum text json" default:"text" class:"once"`

		SlowCommand *string `yaml:"slow_command" is:"ping" default:"5s" class:"once"`
	}
	fileMetrics struct {
		Listen *string `yaml:"listen" is:"listen" need:"" class:"once"`
	}
	fileSnapshotPolicy struct {
		Name         *string   `yaml:"name" is:"label" need:"" class:"once"`
		Volumes      []*string `yaml:"volumes" is:"snapshotted" need:"" list:"set" class:"once" items:"1"`
		Every        *string   `yaml:"every" is:"period" class:"once"`
		At           []*string `yaml:"at" is:"cron" list:"set" class:"once" items:"1"`
		TimeZone     *string   `yaml:"time_zone" is:"zone" default:"UTC" class:"once"`
		Keep         fileKeep  `yaml:"keep" part:"" class:"once"`
		Names        *string   `yaml:"names" is:"snapshotname" default:"%v-%p-%Y%m%d-%H%M%S" class:"once"`
		MaxSnapshots *string   `yaml:"max_snapshots" is:"int 1 100000" default:"1000" class:"once"`
		Together     *string   `yaml:"together" is:"bool" default:"false" class:"once"`
		Pause        *string   `yaml:"pause" is:"bool" default:"false" class:"once"`
		Before       *fileHook `yaml:"before" class:"once"`
		After        *fileHook `yaml:"after" class:"once"`
	}
	fileReplica struct {
		Name      *string   `yaml:"name" is:"label" need:"" class:"once"`
		Peer      *string   `yaml:"peer" is:"peer" need:"" class:"once"`
		Source    *string   `yaml:"source" is:"replicated" need:"" class:"once"`
		To        *string   `yaml:"to" is:"object" auto:"name" class:"once"`
		Every     *string   `yaml:"every" is:"period" class:"once"`
		At        []*string `yaml:"at" is:"cron" list:"set" class:"once" items:"1"`
		TimeZone  *string   `yaml:"time_zone" is:"zone" default:"UTC" class:"once"`
		BytesPerS *string   `yaml:"bytes_per_s" is:"size 64KiB" class:"once" auto:"no limit"`
		Hash      *string   `yaml:"hash" is:"bool" default:"false" class:"once"`
		Keep      *string   `yaml:"keep" is:"int 0 10000" default:"0" class:"once"`
		MaxLag    *string   `yaml:"max_lag" is:"period" class:"once" auto:"none"`
		Pause     *string   `yaml:"pause" is:"bool" default:"false" class:"once"`
	}
	fileKeep struct {
		Last    *string `yaml:"last" is:"kept" class:"once"`
		Hourly  *string `yaml:"hourly" is:"kept" class:"once"`
		Daily   *string `yaml:"daily" is:"kept" class:"once"`
		Weekly  *string `yaml:"weekly" is:"kept" class:"once"`
		Monthly *string `yaml:"monthly" is:"kept" class:"once"`
		Yearly  *string `yaml:"yearly" is:"kept" class:"once"`
		Within  *string `yaml:"within" is:"span" class:"once"`
	}
	fileHook struct {
		Command   []*string `yaml:"command" is:"word" need:"" class:"once" items:"1 64"`
		TimeLimit *string   `yaml:"time_limit" is:"duration" default:"1m0s" class:"once"`
		OnFailure *string   `yaml:"on_failure" is:"enum abort continue" default:"abort" class:"once"`
	}
	fileAlert struct {
		Name       *string `yaml:"name" is:"label" need:"" class:"once"`
		URL        *string `yaml:"url" is:"url" need:"" class:"once"`
		Secret     *string `yaml:"secret" is:"secret" class:"once"`
		SecretFile *string `yaml:"secret_file" is:"path" class:"once"`
		SecretEnv  *string `yaml:"secret_env" is:"env" class:"once"`
	}
)

// UnmarshalYAML decodes either form of a portal.
func (p *filePortal) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		p.Address = &n.Value
		return nil
	}
	type plain filePortal
	return n.Decode((*plain)(p))
}
