#include "textflag.h"

// State and message fill all 32 registers, so that no round touches memory. Lane
// 4c+b belongs to chunk c of block b: a quarter of a register has one chunk of
// each of four blocks.

#define S0 Z0
#define S1 Z1
#define S2 Z2
#define S3 Z3
#define S4 Z4
#define S5 Z5
#define S6 Z6
#define S7 Z7
#define S8 Z8
#define S9 Z9
#define S10 Z10
#define S11 Z11
#define S12 Z12
#define S13 Z13
#define S14 Z14
#define S15 Z15

#define M0 Z16
#define M1 Z17
#define M2 Z18
#define M3 Z19
#define M4 Z20
#define M5 Z21
#define M6 Z22
#define M7 Z23
#define M8 Z24
#define M9 Z25
#define M10 Z26
#define M11 Z27
#define M12 Z28
#define M13 Z29
#define M14 Z30
#define M15 Z31

#define PICK(order, s, m) VSHUFI32X4 $order, s, s, m

#include "avx512_amd64.h"
#include "lanes_amd64.h"

DATA chunk<>+0(SB)/8, $0x0101010100000000
DATA chunk<>+8(SB)/8, $0x0303030302020202
GLOBL chunk<>(SB), RODATA|NOPTR, $16

// ROWS reads 64 bytes of the chunk that begins at c in each block. Quarter q of
// mj becomes the words 4q+j of the four blocks.
#define ROWS(c, m0, m1, m2, m3) \
	VMOVDQU32 c(R8)(BX*1), m0; \
	VMOVDQU32 c(R9)(BX*1), m1; \
	VMOVDQU32 c(R10)(BX*1), m2; \
	VMOVDQU32 c(R11)(BX*1), m3; \
	TRANSPOSE(m0, m1, m2, m3)

// QUARTERS exchanges the rows and columns of four quarters in four registers: of
// the words 4q+j of chunk c, in quarter q of the one for c, it makes one
// register for each q.
#define QUARTERS(a, b, c, d) \
	VSHUFI32X4 $0x44, b, a, S8; \
	VSHUFI32X4 $0xee, b, a, S9; \
	VSHUFI32X4 $0x44, d, c, S10; \
	VSHUFI32X4 $0xee, d, c, S11; \
	VSHUFI32X4 $0x88, S10, S8, a; \
	VSHUFI32X4 $0xdd, S10, S8, b; \
	VSHUFI32X4 $0x88, S11, S9, c; \
	VSHUFI32X4 $0xdd, S11, S9, d

#define MESSAGE \
	ROWS(0, M0, M1, M2, M3); \
	ROWS(1024, M4, M5, M6, M7); \
	ROWS(2048, M8, M9, M10, M11); \
	ROWS(3072, M12, M13, M14, M15); \
	QUARTERS(M0, M4, M8, M12); \
	QUARTERS(M1, M5, M9, M13); \
	QUARTERS(M2, M6, M10, M14); \
	QUARTERS(M3, M7, M11, M15)

#define RESULT \
	TRANSPOSE(S0, S1, S2, S3); \
	TRANSPOSE(S4, S5, S6, S7); \
	VMOVDQU X0, 0(DI); \
	VMOVDQU X4, 16(DI); \
	VMOVDQU X1, 32(DI); \
	VMOVDQU X5, 48(DI); \
	VMOVDQU X2, 64(DI); \
	VMOVDQU X6, 80(DI); \
	VMOVDQU X3, 96(DI); \
	VMOVDQU X7, 112(DI)

// func fourAVX512(sums *[batchBlocks][Size]byte, key *[Size]byte, blocks *[batchBlocks]*[blockLength]byte)
TEXT ·fourAVX512(SB), NOSPLIT, $0-24
	MOVQ sums+0(FP), DI
	MOVQ key+8(FP), SI
	MOVQ blocks+16(FP), AX
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R11
#include "sum_amd64.h"
