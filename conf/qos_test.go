package conf

import (
	"reflect"
	"testing"
)

func TestQoS(t *testing.T) {
	cfg := parsed(t, `data_dir: d
portals: ["127.0.0.1:1"]
targets:
  - name: IQN.2026-11.example:a
    luns: [{lun: 0, volume: a, qos: {iops: 50, bytes_per_s: 1MiB, bytes_burst: 4MiB}}, {lun: 1, volume: b}]
qos:
  initiators:
    - {initiators: [X*], iops: 1}
    - {initiators: [xy, "*"], iops: 2}
  luns:
    - {target: IQN.2026-11.EXAMPLE:A, lun: 1, initiators: [z], iops: 3}
    - {target: iqn.2026-11.example:a, lun: 1, initiators: ["*"], bytes_per_s: 64KiB}
  background: {iops: 4, iops_burst: 7}
`)
	const a = "iqn.2026-11.example:a"
	for name, tt := range map[string]struct{ got, want Rate }{
		"a LUN":                        {cfg.Targets[0].LUNs[0].Rate, Rate{IOPS: 50, BytesPerSecond: 1 << 20, BytesBurst: 4 << 20}},
		"no limit":                     {cfg.Targets[0].LUNs[1].Rate, Rate{}},
		"the first entry that matches": {cfg.QoS.OfInitiator("xy"), Rate{IOPS: 1}},
		"another initiator":            {cfg.QoS.OfInitiator("y"), Rate{IOPS: 2}},
		"a LUN for an initiator":       {cfg.QoS.OfLUN(a, 1, "z"), Rate{IOPS: 3}},
		"a LUN for another":            {cfg.QoS.OfLUN(a, 1, "zz"), Rate{BytesPerSecond: 64 << 10}},
		"another LUN":                  {cfg.QoS.OfLUN(a, 0, "z"), Rate{}},
		"background":                   {cfg.QoS.Background, Rate{IOPS: 4, IOPSBurst: 7}},
		"bursts":                       {cfg.Targets[0].LUNs[0].Rate.WithBursts(), Rate{IOPS: 50, IOPSBurst: 5, BytesPerSecond: 1 << 20, BytesBurst: 4 << 20}},
		"a burst of at least 1":        {Rate{IOPS: 4}.WithBursts(), Rate{IOPS: 4, IOPSBurst: 1}},
		"no burst without a rate":      {Rate{}.WithBursts(), Rate{}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %+v, want %+v", tt.got, tt.want)
			}
		})
	}
}

// The secret of the API without a name is one that administers.
func TestAPI_Secrets(t *testing.T) {
	for keys, want := range map[string][]APISecret{
		"secret: s": {{DefaultAPISecret, RoleAdminister, Secret{secretInline, "s", "api.secret"}, "api"}},
		"secrets: [{name: a, role: read, secret_env: A}]": {{"a", RoleRead, Secret{secretEnv, "A", "api.secrets[0].secret_env"}, "api.secrets[0]"}},
		"secret_file: /s, secrets: [{name: a, role: operate, secret: b}]": {
			{DefaultAPISecret, RoleAdminister, Secret{secretFile, "/s", "api.secret_file"}, "api"},
			{"a", RoleOperate, Secret{secretInline, "b", "api.secrets[0].secret"}, "api.secrets[0]"},
		},
	} {
		t.Run(keys, func(t *testing.T) {
			if got := parsed(t, minimal+"api: {listen: 'a:1', "+keys+"}\n").API.Secrets; !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v, want %#v", got, want)
			}
		})
	}
}

func TestAudit(t *testing.T) {
	for text, want := range map[string]Audit{
		"":                            {},
		"audit: {file: /var/log/a}\n": {"/var/log/a", 16 << 20, 8},
		"audit: {file: a, max_size: 1MiB, keep: 1000}\n": {"/etc/odx/a", 1 << 20, 1000},
	} {
		if got := parsed(t, minimal+text).Audit; got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}
