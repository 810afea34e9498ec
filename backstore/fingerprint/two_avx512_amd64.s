#include "textflag.h"

// State and message fill all 32 registers of 256 bits, so that no round touches
// memory.

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

#define M0 Y16
#define M1 Y17
#define M2 Y18
#define M3 Y19
#define M4 Y20
#define M5 Y21
#define M6 Y22
#define M7 Y23
#define M8 Y24
#define M9 Y25
#define M10 Y26
#define M11 Y27
#define M12 Y28
#define M13 Y29
#define M14 Y30
#define M15 Y31

#define PICK(order, s, m) VPSHUFD $order, s, m
#define BROADCAST_HALF VBROADCASTI32X4
#define INSERT_HALF VINSERTI32X4

#include "avx512_amd64.h"
#include "lanes_amd64.h"
#include "two_amd64.h"

#define MESSAGE \
	ROWS(0, M0, M1, M2, M3); \
	ROWS(16, M4, M5, M6, M7); \
	ROWS(32, M8, M9, M10, M11); \
	ROWS(48, M12, M13, M14, M15)

// func twoAVX512(sums *[2][Size]byte, key *[Size]byte, a, b *[blockLength]byte)
TEXT ·twoAVX512(SB), NOSPLIT, $0-32
	MOVQ sums+0(FP), DI
	MOVQ key+8(FP), SI
	MOVQ a+16(FP), R8
	MOVQ b+24(FP), R9
#include "sum_amd64.h"
