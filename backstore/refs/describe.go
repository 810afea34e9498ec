package refs

// Describe returns what a row of a page of counts has beyond one reference, by index
// within the page: for people.
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
