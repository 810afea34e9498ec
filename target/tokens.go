package target

import "context"

// relieveStore gives up tokens that hold space which the store needs.
func (s *Service) relieveStore(need int64) {
	given, err := s.tokens.Relieve(context.Background(), need)
	if err != nil {
		s.log.WithError(err).Warn("tokens could not be given up for space")
	}
	if given > 0 {
		s.log.WithField("bytes", given).Info("tokens were given up: the store is getting full")
	}
}
