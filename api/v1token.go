package api

import (
	"odx/admin"
	v1 "odx/api/v1"
	"odx/tokens"
)

func tokenRequestV1(r admin.TokenRequest) v1.TokenRequest {
	return v1.TokenRequest{
		Peer: r.Peer, Volume: r.Volume, Offset: r.Offset, Length: r.Length, Type: uint32(r.Type), InactivitySeconds: r.InactivitySeconds,
		Priority: r.Priority, Access: string(r.Access), Providers: r.Providers, Skip: r.Skip,
	}
}

func tokenRequestOf(r v1.TokenRequest) admin.TokenRequest {
	return admin.TokenRequest{
		Peer: r.Peer, Volume: r.Volume, Offset: r.Offset, Length: r.Length, Type: tokens.RODType(r.Type), InactivitySeconds: r.InactivitySeconds,
		Priority: r.Priority, Access: tokens.Access(r.Access), Providers: r.Providers, Skip: r.Skip,
	}
}

// TokenInfoV1 returns the JSON of the description of a token.
func TokenInfoV1(t admin.TokenInfo) v1.TokenInfo {
	return v1.TokenInfo{
		ID: t.ID.String(), Type: uint32(t.Type), TypeName: t.TypeName, Bytes: t.Bytes, Volume: t.Volume, Initiator: t.Initiator,
		Created: t.Created, LastUsed: t.LastUsed, Expires: t.Expires, Inactivity: t.Inactivity, Uses: t.Uses, InUse: t.InUse, Priority: t.Priority,
	}
}

// TokenInfosV1 returns the JSON of the descriptions of tokens.
func TokenInfosV1(list []admin.TokenInfo) []v1.TokenInfo { return each(TokenInfoV1)(list) }

// tokenInfoOf is the inverse of TokenInfoV1; an error for an invalid identifier.
func tokenInfoOf(t v1.TokenInfo) (admin.TokenInfo, error) {
	id, err := tokens.ParseID(t.ID)
	return admin.TokenInfo{
		ID: id, Type: tokens.RODType(t.Type), TypeName: t.TypeName, Bytes: t.Bytes, Volume: t.Volume, Initiator: t.Initiator,
		Created: t.Created, LastUsed: t.LastUsed, Expires: t.Expires, Inactivity: t.Inactivity, Uses: t.Uses, InUse: t.InUse, Priority: t.Priority,
	}, err
}

func tokenInfosOf(list []v1.TokenInfo) ([]admin.TokenInfo, error) {
	infos := make([]admin.TokenInfo, len(list))
	for i, t := range list {
		var err error
		if infos[i], err = tokenInfoOf(t); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// MadeTokenV1 returns the JSON of a new token.
func MadeTokenV1(t admin.MadeToken) v1.MadeToken {
	return v1.MadeToken{
		Token: t.Token, Length: t.Length, TokenInfo: TokenInfoV1(t.TokenInfo),
		Others: each(func(p admin.ProvidedToken) v1.ProvidedToken { return v1.ProvidedToken(p) })(t.Others),
	}
}

func madeTokenOf(t v1.MadeToken) (admin.MadeToken, error) {
	info, err := tokenInfoOf(t.TokenInfo)
	return admin.MadeToken{
		Token: t.Token, Length: t.Length, TokenInfo: info,
		Others: each(func(p v1.ProvidedToken) admin.ProvidedToken { return admin.ProvidedToken(p) })(t.Others),
	}, err
}

func tokenWriteV1(r admin.TokenWrite) v1.TokenWrite { return v1.TokenWrite(r) }

func tokenWriteOf(r v1.TokenWrite) admin.TokenWrite { return admin.TokenWrite(r) }

// TokenWrittenV1 returns the JSON of the result of a write with a token.
func TokenWrittenV1(w admin.TokenWritten) v1.TokenWritten { return v1.TokenWritten(w) }

func tokenWrittenOf(w v1.TokenWritten) admin.TokenWritten { return admin.TokenWritten(w) }

// TokenVerifiedV1 returns the JSON of the result of a verification.
func TokenVerifiedV1(v admin.TokenVerified) v1.TokenVerified { return v1.TokenVerified(v) }

func tokenVerifiedOf(v v1.TokenVerified) admin.TokenVerified { return admin.TokenVerified(v) }
