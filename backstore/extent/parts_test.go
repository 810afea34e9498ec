package extent

import "odx/backstore/meta"

// encodeParts passes the encoded rows of all parts of a cut to emit.
func encodeParts(parts map[byte]func(func(meta.Op) error) error, emit func(meta.Op) error) error {
	for _, encode := range parts {
		if err := encode(emit); err != nil {
			return err
		}
	}
	return nil
}
