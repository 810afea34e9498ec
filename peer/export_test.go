package peer

import "time"

// Hurry sets how long peers may take to open a token, and to fail.
func (t *Tokens) Hurry(open, patience time.Duration) { t.openTime, t.patience = open, patience }
