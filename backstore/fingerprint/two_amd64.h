// Common code of the kernels for two blocks. Lane 4b+c belongs to chunk c of
// block b: each half of a register has the four chunks of a block.

DATA chunk<>+0(SB)/8, $0x0302010003020100
GLOBL chunk<>(SB), RODATA|NOPTR, $8

// HALVES reads four words at the same place of both blocks.
#define HALVES(at, m) \
	BROADCAST_HALF at(R9)(BX*1), m; \
	INSERT_HALF $0, at(R8)(BX*1), m, m

// ROWS reads 16 bytes at q of each chunk. Each register becomes one word of
// every chunk.
#define ROWS(q, m0, m1, m2, m3) \
	HALVES((q+0), m0); \
	HALVES((q+1024), m1); \
	HALVES((q+2048), m2); \
	HALVES((q+3072), m3); \
	TRANSPOSE(m0, m1, m2, m3)

#define RESULT \
	TRANSPOSE(S0, S1, S2, S3); \
	TRANSPOSE(S4, S5, S6, S7); \
	VMOVDQU X0, 0(DI); \
	VMOVDQU X4, 16(DI); \
	VEXTRACTI128 $1, S0, 32(DI); \
	VEXTRACTI128 $1, S4, 48(DI)
