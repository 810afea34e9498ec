package api

import (
	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
)

func scrubRequestV1(r admin.ScrubRequest) v1.ScrubRequest { return v1.ScrubRequest(r) }

func scrubRequestOf(r v1.ScrubRequest) admin.ScrubRequest { return admin.ScrubRequest(r) }

func scrubProgressV1(p backstore.ScrubProgress) v1.ScrubProgress { return v1.ScrubProgress(p) }

func scrubProgressOf(p v1.ScrubProgress) backstore.ScrubProgress { return backstore.ScrubProgress(p) }

// ScrubResultV1 returns the JSON of the result of a scrub.
func ScrubResultV1(r backstore.ScrubResult) v1.ScrubResult {
	return v1.ScrubResult{
		ScrubProgress: scrubProgressV1(r.ScrubProgress), Damages: each(damageV1)(r.Damages), Metadata: r.Metadata,
		MendedBytes: r.MendedBytes, Mended: each(func(m backstore.Mended) v1.Mended { return v1.Mended(m) })(r.Mended),
	}
}

func scrubResultOf(r v1.ScrubResult) backstore.ScrubResult {
	return backstore.ScrubResult{
		ScrubProgress: scrubProgressOf(r.ScrubProgress), Damages: each(damageOf)(r.Damages), Metadata: r.Metadata,
		MendedBytes: r.MendedBytes, Mended: each(func(m v1.Mended) backstore.Mended { return backstore.Mended(m) })(r.Mended),
	}
}

func damageV1(d backstore.Damage) v1.Damage {
	return v1.Damage{
		Extent: d.Extent, Segment: d.Segment, Block: d.Block, Blocks: d.Blocks, Reason: d.Reason,
		Uses: each(func(u backstore.Use) v1.Use { return v1.Use(u) })(d.Uses), MoreUses: d.MoreUses,
	}
}

func damageOf(d v1.Damage) backstore.Damage {
	return backstore.Damage{
		Extent: d.Extent, Segment: d.Segment, Block: d.Block, Blocks: d.Blocks, Reason: d.Reason,
		Uses: each(func(u v1.Use) backstore.Use { return backstore.Use(u) })(d.Uses), MoreUses: d.MoreUses,
	}
}
