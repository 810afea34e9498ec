package api

import (
	"fmt"
	"net/netip"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/conf"
)

func accessV1(a conf.Access) v1.Access {
	return v1.Access{
		Initiators: textsOf(a.Initiators), Addresses: each(netip.Prefix.String)(a.Addresses), LUNs: each(mappedLUNV1)(a.LUNs),
		ReadOnly: a.ReadOnly, StoreDuplicates: a.StoreDuplicates,
	}
}

// accessOf is the inverse of accessV1; an error for what is no address.
func accessOf(a v1.Access) (conf.Access, error) {
	out := conf.Access{Initiators: patternsOf(a.Initiators), LUNs: each(mappedLUNOf)(a.LUNs), ReadOnly: a.ReadOnly, StoreDuplicates: a.StoreDuplicates}
	for _, text := range a.Addresses {
		p, err := prefixOf(text)
		if err != nil {
			return conf.Access{}, fmt.Errorf("%w: addresses: %q is neither an address nor a network, such as 192.0.2.0/24", blockdev.ErrInvalid, text)
		}
		out.Addresses = append(out.Addresses, p)
	}
	return out, nil
}

// prefixOf reads a network, or an address, which is one of its own.
func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

func mappedLUNV1(m conf.MappedLUN) v1.MappedLUN {
	out := v1.MappedLUN{LUN: m.LUN, ReadOnly: m.ReadOnly}
	if m.As != m.LUN {
		out.As = new(m.As)
	}
	return out
}

func mappedLUNOf(m v1.MappedLUN) conf.MappedLUN {
	out := conf.MappedLUN{LUN: m.LUN, As: m.LUN, ReadOnly: m.ReadOnly}
	if m.As != nil {
		out.As = *m.As
	}
	return out
}
