package target

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"odx/conf"
	client "odx/initiator"
)

// usedAs returns the address by which this server uses the LUN at url already, "" if there is
// none. url is open. Others are those that are open, and those of urls that are recorded.
func (f *foreignLUNs) usedAs(url string, urls []string) string {
	ids := map[string]string{}
	for _, other := range urls {
		if g, err := f.known(other); err == nil { // one that cannot be read is reported where it is opened
			ids[other] = g.ID
		}
	}
	f.mu.Lock()
	for other, o := range f.open {
		if o.disk != nil {
			ids[other] = o.disk.Geometry().ID
		}
	}
	f.mu.Unlock()
	for _, other := range slices.Sorted(maps.Keys(ids)) {
		if other != url && ids[other] == ids[url] && tells(ids[url], url, other) {
			return other
		}
	}
	return ""
}

// tells reports whether LUNs at two addresses are one if they have this identity. One that a target
// chooses for itself alone tells its own LUNs apart.
func tells(id, a, b string) bool {
	if worldwide(id) {
		return true
	}
	u, err := client.ParseURL(a)
	if err != nil {
		return false
	}
	v, err := client.ParseURL(b)
	return err == nil && u.Target == v.Target && u.LUN == v.LUN
}

// worldwide reports whether no two logical units of the world have an identity: an NAA identifier
// or an EUI-64 with the number of a company. NAA 3h is assigned locally (SPC-4 7.8.6.6.4), and
// tgtd numbers its LUNs with a company of 0.
func worldwide(id string) bool {
	kind, digits, _ := strings.Cut(id, ".")
	const companyDigits = 6
	at := 0
	switch {
	case kind == "eui":
	case kind == "naa" && strings.HasPrefix(digits, "2"):
		at = 4
	case kind == "naa" && (strings.HasPrefix(digits, "5") || strings.HasPrefix(digits, "6")):
		at = 1
	default:
		return false
	}
	return len(digits) >= at+companyDigits && strings.Trim(digits[at:at+companyDigits], "0") != ""
}

// foreignURLs returns the LUNs of other targets that a configuration names.
func foreignURLs(cfg *conf.Config) (urls []string) {
	for i := range cfg.Targets {
		for k := range cfg.Targets[i].LUNs {
			if url := cfg.Targets[i].LUNs[k].ISCSI; url != "" {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

// own returns the medium of the logical unit with this identity, "" if none has it.
func (st *state) own(id string) string {
	for medium, u := range st.units {
		if naa := u.lu.NAA(); id == "naa."+hex.EncodeToString(naa[:]) {
			return medium
		}
	}
	return ""
}
