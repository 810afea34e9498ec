package target

import "context"

// relieveStore cancels tokens that hold space which the store needs.
func (s *Service) relieveStore(need int64) {
	given, err := s.tokens.Relieve(context.Background(), need)
	if err != nil {
		s.log.WithError(err).Warn("no tokens cancelled for space")
	}
	if given > 0 {
		s.log.WithField("bytes", given).Info("tokens cancelled: store above the soft threshold")
	}
}
