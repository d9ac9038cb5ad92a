/* native.c once more, for x86-64 processors with AVX-512. */
#ifdef __x86_64__
#define NEWER
#define VERSION avx512
#ifdef __clang__ /* to use an instruction by its name, it wants all functions to be for the target */
#define TARGETED
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"))), apply_to = function)
#include "native.c"
#pragma clang attribute pop
#else /* gcc makes quicker code if the loops alone are */
#define TARGETED __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")))
#include "native.c"
#endif
#endif
