// AVX-512 macros for lanes_amd64.h.

#define VXOR VPXORD

#define ROTATE(n, t0, t1, t2, t3) \
	VPRORD $n, t0, t0; \
	VPRORD $n, t1, t1; \
	VPRORD $n, t2, t2; \
	VPRORD $n, t3, t3

#define ROTATE16(t0, t1, t2, t3) ROTATE(16, t0, t1, t2, t3)
#define ROTATE12(t0, t1, t2, t3) ROTATE(12, t0, t1, t2, t3)
#define ROTATE8(t0, t1, t2, t3) ROTATE(8, t0, t1, t2, t3)
#define ROTATE7(t0, t1, t2, t3) ROTATE(7, t0, t1, t2, t3)
