// The body of a kernel: the keyed hash of 4 KiB, sections 2.1 to 2.5, in 18 steps
// that all lanes take at once. CX is the step, BX where it reads in each chunk, SI
// the key. MESSAGE reads 64 bytes of each chunk, chunk<> has the number of each
// lane's chunk in a byte, and RESULT stores the chaining values of the roots.

	LEAQ flags<>(SB), DX
	XORL CX, CX
	XORL BX, BX
	KEY

chunks:
	MESSAGE
	VPMOVZXBD chunk<>(SB), S12
	ADDQ $64, BX
	JMP compress

parents:
	// The first time four chunks become two parents, then these the root.
	CHILDREN
	KEY
	VXOR S12, S12, S12

compress:
	COMPRESS
	INCQ CX
	CMPQ CX, $16
	JB chunks
	CMPQ CX, $18
	JB parents

	RESULT
	VZEROUPPER
	RET
