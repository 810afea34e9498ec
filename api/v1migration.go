package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// MigrationV1 returns the JSON of a migration.
func MigrationV1(m admin.Migration) v1.Migration {
	return v1.Migration{
		Volume: m.Volume, To: m.To, Peer: m.Peer, State: string(m.State), SizeBytes: m.SizeBytes, Rounds: m.Rounds, CopiedBytes: m.CopiedBytes,
		RoundBytes: m.RoundBytes, RoundCopiedBytes: m.RoundCopied, BytesPerSecond: m.BytesPerSecond, RemainingSeconds: m.Remaining.Seconds(),
		Diverges: m.Diverges, Throttled: m.Throttled, Cuts: m.Cuts, CutSeconds: m.Cut.Seconds(), LongestHoldSeconds: m.LongestCut.Seconds(),
		Problem: m.Problem, Began: m.Began, Ended: m.Ended,
	}
}

func migrationOf(m v1.Migration) admin.Migration {
	return admin.Migration{
		Volume: m.Volume, To: m.To, Peer: m.Peer, State: admin.MigrationState(m.State), SizeBytes: m.SizeBytes, Rounds: m.Rounds, CopiedBytes: m.CopiedBytes,
		RoundBytes: m.RoundBytes, RoundCopied: m.RoundCopiedBytes, BytesPerSecond: m.BytesPerSecond, Remaining: durationOf(m.RemainingSeconds),
		Diverges: m.Diverges, Throttled: m.Throttled, Cuts: m.Cuts, Cut: durationOf(m.CutSeconds), LongestCut: durationOf(m.LongestHoldSeconds),
		Problem: m.Problem, Began: m.Began, Ended: m.Ended,
	}
}

func migrationRequestV1(r admin.MigrationRequest) v1.MigrationRequest {
	return v1.MigrationRequest{Volume: r.Volume, To: r.To, Portal: r.Portal, Overwrite: r.Overwrite, BytesPerSecond: r.Rate, ThrottleBytesPerSecond: r.Throttle, Login: loginV1(r.Login)}
}

func migrationRequestOf(r v1.MigrationRequest) (admin.MigrationRequest, error) {
	login, err := loginOf(r.Login)
	return admin.MigrationRequest{Volume: r.Volume, To: r.To, Portal: r.Portal, Overwrite: r.Overwrite, Rate: r.BytesPerSecond, Throttle: r.ThrottleBytesPerSecond, Login: login}, err
}
