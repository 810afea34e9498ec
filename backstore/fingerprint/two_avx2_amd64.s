#include "textflag.h"

// The state fills all 16 registers. The message lies on the stack, and with it
// the register that the shifts of a rotation borrow.

#define S0 Y0
#define S1 Y1
#define S2 Y2
#define S3 Y3
#define S4 Y4
#define S5 Y5
#define S6 Y6
#define S7 Y7
#define S8 Y8
#define S9 Y9
#define S10 Y10
#define S11 Y11
#define S12 Y12
#define S13 Y13
#define S14 Y14
#define S15 Y15

#define M0 0(R12)
#define M1 32(R12)
#define M2 64(R12)
#define M3 96(R12)
#define M4 128(R12)
#define M5 160(R12)
#define M6 192(R12)
#define M7 224(R12)
#define M8 256(R12)
#define M9 288(R12)
#define M10 320(R12)
#define M11 352(R12)
#define M12 384(R12)
#define M13 416(R12)
#define M14 448(R12)
#define M15 480(R12)
#define SAVED 512(R12)

#define VXOR VPXOR
#define BROADCAST_HALF VBROADCASTI128
#define INSERT_HALF VINSERTI128

// COMPRESS sets S8 later.
#define PICK(order, s, m) \
	VPSHUFD $order, s, S8; \
	VMOVDQU S8, m

// Rotations by whole bytes are permutations of the bytes of each word.
DATA right2<>+0(SB)/8, $0x0504070601000302
DATA right2<>+8(SB)/8, $0x0d0c0f0e09080b0a
DATA right2<>+16(SB)/8, $0x0504070601000302
DATA right2<>+24(SB)/8, $0x0d0c0f0e09080b0a
GLOBL right2<>(SB), RODATA|NOPTR, $32
DATA right1<>+0(SB)/8, $0x0407060500030201
DATA right1<>+8(SB)/8, $0x0c0f0e0d080b0a09
DATA right1<>+16(SB)/8, $0x0407060500030201
DATA right1<>+24(SB)/8, $0x0c0f0e0d080b0a09
GLOBL right1<>(SB), RODATA|NOPTR, $32

#define BYTES(order, t0, t1, t2, t3) \
	VPSHUFB order<>(SB), t0, t0; \
	VPSHUFB order<>(SB), t1, t1; \
	VPSHUFB order<>(SB), t2, t2; \
	VPSHUFB order<>(SB), t3, t3

#define SHIFT(right, left, t) \
	VPSLLD $left, t, S15; \
	VPSRLD $right, t, t; \
	VPOR S15, t, t

#define SHIFTS(right, left, t0, t1, t2, t3) \
	VMOVDQU S15, SAVED; \
	SHIFT(right, left, t0); \
	SHIFT(right, left, t1); \
	SHIFT(right, left, t2); \
	SHIFT(right, left, t3); \
	VMOVDQU SAVED, S15

#define ROTATE16(t0, t1, t2, t3) BYTES(right2, t0, t1, t2, t3)
#define ROTATE12(t0, t1, t2, t3) SHIFTS(12, 20, t0, t1, t2, t3)
#define ROTATE8(t0, t1, t2, t3) BYTES(right1, t0, t1, t2, t3)
#define ROTATE7(t0, t1, t2, t3) SHIFTS(7, 25, t0, t1, t2, t3)

#include "lanes_amd64.h"
#include "two_amd64.h"

#define WORDS(q, m0, m1, m2, m3) \
	ROWS(q, S12, S13, S14, S15); \
	VMOVDQU S12, m0; \
	VMOVDQU S13, m1; \
	VMOVDQU S14, m2; \
	VMOVDQU S15, m3

#define MESSAGE \
	WORDS(0, M0, M1, M2, M3); \
	WORDS(16, M4, M5, M6, M7); \
	WORDS(32, M8, M9, M10, M11); \
	WORDS(48, M12, M13, M14, M15)

// func twoAVX2(sums *[2][Size]byte, key *[Size]byte, a, b *[blockLength]byte)
TEXT ·twoAVX2(SB), 0, $576-32
	MOVQ sums+0(FP), DI
	MOVQ key+8(FP), SI
	MOVQ a+16(FP), R8
	MOVQ b+24(FP), R9
	LEAQ 31(SP), R12 // no spilled register straddles two cache lines
	ANDQ $~31, R12
#include "sum_amd64.h"
