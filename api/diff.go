package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"odx/admin"
	v1 "odx/api/v1"
)

// diffRoutes are the routes of comparisons.
var diffRoutes = []route{
	{http.MethodGet, "/v1/volumes/{name}/diff", "The ranges that differ from ?base=, or, without it, that are allocated; from ?offset=, ?length= of them. Answers with lines of ranges.", http.StatusOK, long, operates, looks, diff},
}

func diff(c *call) (any, error) {
	r := admin.DiffRequest{Name: c.request.PathValue("name"), Base: c.request.URL.Query().Get("base")}
	for key, n := range map[string]*int64{"offset": &r.Offset, "length": &r.Length} {
		if !c.request.URL.Query().Has(key) {
			continue
		}
		var err error
		if *n, err = c.number(key); err != nil {
			return nil, err
		}
	}
	send := func(ranges []admin.DiffRange) error {
		// A client that does not read would have the server keep the snapshot.
		c.deadline((*http.ResponseController).SetWriteDeadline)
		c.reportProgress(v1.DiffRanges{Ranges: DiffRangesV1(ranges)})
		return c.ctx.Err()
	}
	d, err := c.admin.Diff(c.ctx, r, send)
	if err == nil && !c.streaming {
		err = send(nil) // the answer is lines, also where nothing differs
	}
	return DiffV1(d), err
}

// Diff implements admin.Administrator.
func (c *Client) Diff(ctx context.Context, r admin.DiffRequest, found func([]admin.DiffRange) error) (admin.Diff, error) {
	query := url.Values{"offset": {fmt.Sprint(r.Offset)}, "length": {fmt.Sprint(r.Length)}}
	if r.Base != "" {
		query.Set("base", r.Base)
	}
	path, err := volumePath(r.Name, "/diff?"+query.Encode())
	if err != nil {
		return admin.Diff{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var refused error
	result, err := linesOf[v1.DiffRanges, v1.Diff](ctx, c, http.MethodGet, path, nil, func(lines v1.DiffRanges) {
		if refused == nil {
			refused = found(diffRangesOf(lines.Ranges))
		}
		if refused != nil {
			cancel()
		}
	})
	if refused != nil { // also where the whole answer was here before the cancellation
		err = refused
	}
	return admin.Diff{SizeBytes: result.SizeBytes, BaseBytes: result.BaseSizeBytes, Ranges: result.Ranges, DataBytes: result.DataBytes, HoleBytes: result.HoleBytes}, err
}

// DiffV1 returns the JSON of the result of a comparison.
func DiffV1(d admin.Diff) v1.Diff {
	return v1.Diff{SizeBytes: d.SizeBytes, BaseSizeBytes: d.BaseBytes, Ranges: d.Ranges, DataBytes: d.DataBytes, HoleBytes: d.HoleBytes}
}

// DiffRangesV1 returns the JSON of ranges.
func DiffRangesV1(ranges []admin.DiffRange) []v1.DiffRange {
	return each(func(r admin.DiffRange) v1.DiffRange {
		kind := v1.DiffData
		if r.Hole {
			kind = v1.DiffHole
		}
		return v1.DiffRange{Offset: r.Offset, Length: r.Length, Kind: kind}
	})(ranges)
}

func diffRangesOf(ranges []v1.DiffRange) []admin.DiffRange {
	return each(func(r v1.DiffRange) admin.DiffRange {
		return admin.DiffRange{Offset: r.Offset, Length: r.Length, Hole: r.Kind == v1.DiffHole}
	})(ranges)
}
