// Common code of the kernels: the compression function of BLAKE3 in as many lanes
// as a register has words, after the BLAKE3 specification, section 2. A lane
// belongs to one chunk of a block, or to one parent node.
//
// The including file defines the registers of the state, S0 to S15, and the
// locations of the message, M0 to M15; VXOR(s, t, t), t ^= s; ROTATE16, ROTATE12,
// ROTATE8 and ROTATE7, which rotate four registers to the right; and PICK.

// The constants of section 2.2, and the length of every block.
#define IV0 0x6a09e667
#define IV1 0xbb67ae85
#define IV2 0x3c6ef372
#define IV3 0xa54ff53a
DATA words<>+0(SB)/4, $IV0
DATA words<>+4(SB)/4, $IV1
DATA words<>+8(SB)/4, $IV2
DATA words<>+12(SB)/4, $IV3
DATA words<>+16(SB)/4, $64
GLOBL words<>(SB), RODATA|NOPTR, $20

// The flags of the 18 steps, section 2.2, all with KEYED_HASH (16): 16 blocks of a
// chunk, the first with CHUNK_START (1), the last with CHUNK_END (2); two PARENTs
// (4); their PARENT and ROOT (8).
DATA flags<>+0(SB)/8, $0x0000001000000011
DATA flags<>+8(SB)/8, $0x0000001000000010
DATA flags<>+16(SB)/8, $0x0000001000000010
DATA flags<>+24(SB)/8, $0x0000001000000010
DATA flags<>+32(SB)/8, $0x0000001000000010
DATA flags<>+40(SB)/8, $0x0000001000000010
DATA flags<>+48(SB)/8, $0x0000001000000010
DATA flags<>+56(SB)/8, $0x0000001200000010
DATA flags<>+64(SB)/8, $0x0000001c00000014
GLOBL flags<>(SB), RODATA|NOPTR, $72

// t += s, four times
#define ADD(s0, s1, s2, s3, t0, t1, t2, t3) \
	VPADDD s0, t0, t0; \
	VPADDD s1, t1, t1; \
	VPADDD s2, t2, t2; \
	VPADDD s3, t3, t3

// t ^= s, four times
#define XOR(s0, s1, s2, s3, t0, t1, t2, t3) \
	VXOR s0, t0, t0; \
	VXOR s1, t1, t1; \
	VXOR s2, t2, t2; \
	VXOR s3, t3, t3

// G is the function of section 2.2 on four columns, or four diagonals, whose
// first words are S0 to S3.
#define G(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, x0, y0, x1, y1, x2, y2, x3, y3) \
	ADD(x0, x1, x2, x3, S0, S1, S2, S3); \
	ADD(b0, b1, b2, b3, S0, S1, S2, S3); \
	XOR(S0, S1, S2, S3, d0, d1, d2, d3); \
	ROTATE16(d0, d1, d2, d3); \
	ADD(d0, d1, d2, d3, c0, c1, c2, c3); \
	XOR(c0, c1, c2, c3, b0, b1, b2, b3); \
	ROTATE12(b0, b1, b2, b3); \
	ADD(y0, y1, y2, y3, S0, S1, S2, S3); \
	ADD(b0, b1, b2, b3, S0, S1, S2, S3); \
	XOR(S0, S1, S2, S3, d0, d1, d2, d3); \
	ROTATE8(d0, d1, d2, d3); \
	ADD(d0, d1, d2, d3, c0, c1, c2, c3); \
	XOR(c0, c1, c2, c3, b0, b1, b2, b3); \
	ROTATE7(b0, b1, b2, b3)

#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	G(S4, S5, S6, S7, S8, S9, S10, S11, S12, S13, S14, S15, m0, m1, m2, m3, m4, m5, m6, m7); \
	G(S5, S6, S7, S4, S10, S11, S8, S9, S15, S12, S13, S14, m8, m9, m10, m11, m12, m13, m14, m15)

// COMPRESS is the compression function, section 2.2, for the chaining values in
// S0 to S7, the message, the low half of the counter in S12, and step CX of the
// flags at DX. The permutation of the message words is in the arguments of ROUND.
#define COMPRESS \
	VPBROADCASTD words<>+0(SB), S8; \
	VPBROADCASTD words<>+4(SB), S9; \
	VPBROADCASTD words<>+8(SB), S10; \
	VPBROADCASTD words<>+12(SB), S11; \
	VXOR S13, S13, S13; \
	VPBROADCASTD words<>+16(SB), S14; \
	VPBROADCASTD (DX)(CX*4), S15; \
	ROUND(M0, M1, M2, M3, M4, M5, M6, M7, M8, M9, M10, M11, M12, M13, M14, M15); \
	ROUND(M2, M6, M3, M10, M7, M0, M4, M13, M1, M11, M12, M5, M9, M14, M15, M8); \
	ROUND(M3, M4, M10, M12, M13, M2, M7, M14, M6, M5, M9, M0, M11, M15, M8, M1); \
	ROUND(M10, M7, M12, M9, M14, M3, M13, M15, M4, M0, M11, M2, M5, M8, M1, M6); \
	ROUND(M12, M13, M9, M11, M15, M10, M14, M8, M7, M2, M5, M3, M0, M1, M6, M4); \
	ROUND(M9, M14, M11, M5, M8, M12, M15, M1, M13, M3, M0, M10, M2, M6, M4, M7); \
	ROUND(M11, M15, M5, M0, M1, M9, M8, M6, M14, M10, M2, M12, M3, M4, M7, M13); \
	VXOR S8, S0, S0; \
	VXOR S9, S1, S1; \
	VXOR S10, S2, S2; \
	VXOR S11, S3, S3; \
	VXOR S12, S4, S4; \
	VXOR S13, S5, S5; \
	VXOR S14, S6, S6; \
	VXOR S15, S7, S7

// KEY makes the chaining values the key at SI, section 2.3.
#define KEY \
	VPBROADCASTD 0(SI), S0; \
	VPBROADCASTD 4(SI), S1; \
	VPBROADCASTD 8(SI), S2; \
	VPBROADCASTD 12(SI), S3; \
	VPBROADCASTD 16(SI), S4; \
	VPBROADCASTD 20(SI), S5; \
	VPBROADCASTD 24(SI), S6; \
	VPBROADCASTD 28(SI), S7

// CHILDREN makes the chaining values the message of their parents, section 2.5.
// PICK(order, s, m) permutes what s has of the four chunks: it puts the first
// and the third first with 0x08, the second and the fourth with 0x0d. The rest of
// the register is not used.
#define CHILDREN \
	PICK(0x08, S0, M0); \
	PICK(0x08, S1, M1); \
	PICK(0x08, S2, M2); \
	PICK(0x08, S3, M3); \
	PICK(0x08, S4, M4); \
	PICK(0x08, S5, M5); \
	PICK(0x08, S6, M6); \
	PICK(0x08, S7, M7); \
	PICK(0x0d, S0, M8); \
	PICK(0x0d, S1, M9); \
	PICK(0x0d, S2, M10); \
	PICK(0x0d, S3, M11); \
	PICK(0x0d, S4, M12); \
	PICK(0x0d, S5, M13); \
	PICK(0x0d, S6, M14); \
	PICK(0x0d, S7, M15)

// TRANSPOSE exchanges the rows and columns of four words in four registers, in
// each quarter separately. It uses S8 to S11.
#define TRANSPOSE(a, b, c, d) \
	VPUNPCKLDQ b, a, S8; \
	VPUNPCKHDQ b, a, S9; \
	VPUNPCKLDQ d, c, S10; \
	VPUNPCKHDQ d, c, S11; \
	VPUNPCKLQDQ S10, S8, a; \
	VPUNPCKHQDQ S10, S8, b; \
	VPUNPCKLQDQ S11, S9, c; \
	VPUNPCKHQDQ S11, S9, d
