package refs

// Describe returns the nonzero extra counts of a stored page in readable form, by index
// within the page.
func Describe(k Kind, value []byte) (map[int]int64, error) {
	p, err := decode(k.Least, value)
	if err != nil {
		return nil, err
	}
	extra := make(map[int]int64)
	for i, n := range p.extra {
		if n != 0 {
			extra[i] = n
		}
	}
	return extra, nil
}
