// SPDX-License-Identifier: Apache-2.0
//
// The vectors of the CPU backend, loaded from memory and stored. For kernels.cpp, which is compiled
// once per SIMD level: everything here has internal linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtypes.h"

#if defined(__AVX2__)
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 means its own header
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace d3 {
namespace {

// Lanes that sums run over, the same at every SIMD level, so that sums have the same bits: as many
// as the widest register holds.
template <class DTypes>
constexpr int kLanes = 64 / sizeof(typename DTypes::Real);

// Elements per vector: what a register holds. Longer vectors would be taken apart, and comparisons
// of them element by element.
#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
template <class DTypes>
constexpr int kWidth = kRegister / sizeof(typename DTypes::Real);

// GCC/Clang vectors of N numbers: as computed with (Real), as stored (Packed), and as stored at any
// address (Unaligned). Members of structs: as template arguments the last would lose their
// alignment.
template <class Stored, int N>
struct Lanes {  // half types
  typedef float Real __attribute__((vector_size(4 * N)));
  typedef uint16_t Packed __attribute__((vector_size(2 * N)));
  typedef uint16_t Unaligned __attribute__((vector_size(2 * N), aligned(2), may_alias));
};
template <int N>
struct Lanes<float, N> {
  typedef float Real __attribute__((vector_size(4 * N)));
  typedef Real Packed;
  typedef float Unaligned __attribute__((vector_size(4 * N), aligned(4), may_alias));
};
template <int N>
struct Lanes<double, N> {
  typedef double Real __attribute__((vector_size(8 * N)));
  typedef Real Packed;
  typedef double Unaligned __attribute__((vector_size(8 * N), aligned(8), may_alias));
};
template <class Stored, int N>
using Vec = typename Lanes<Stored, N>::Real;
template <class Stored, int N>
using Packed = typename Lanes<Stored, N>::Packed;
using Floats = Vec<float, kRegister / 4>;
using Halves = Packed<Bf16, kRegister / 4>;
typedef uint32_t FloatWords __attribute__((vector_size(kRegister)));

}  // namespace

template <>
struct WordsFor<Floats> {
  using Type = FloatWords;
};

namespace {

// The compiler by itself would widen and narrow vectors in two halves.
D3_HD FloatWords words_of(const Halves& x) {
#if defined(__AVX512F__)
  return same_bits<FloatWords>(_mm512_cvtepu16_epi32(same_bits<__m256i>(x)));
#elif defined(__AVX2__)
  return same_bits<FloatWords>(_mm256_cvtepu16_epi32(same_bits<__m128i>(x)));
#else
  return __builtin_convertvector(x, FloatWords);
#endif
}

// The words are below 2^16.
D3_HD Halves halves_of(const FloatWords& x) {
#if defined(__AVX512F__)
  return same_bits<Halves>(_mm512_cvtepi32_epi16(same_bits<__m512i>(x)));
#elif defined(__AVX2__)
  const __m256i all = same_bits<__m256i>(x);
  return same_bits<Halves>(
      _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
#else
  return __builtin_convertvector(x, Halves);
#endif
}

// With instructions of the CPU, where the level has them; the bits are those of `encode`.
template <class Half>
D3_HD Floats values_of(const Halves& x) {
  if constexpr (std::is_same_v<Half, F16>) {
#if defined(__AVX512F__)
    return same_bits<Floats>(_mm512_cvtph_ps(same_bits<__m256i>(x)));
#elif defined(__F16C__)
    return same_bits<Floats>(_mm256_cvtph_ps(same_bits<__m128i>(x)));
#endif
  }
  return decode<Half, Floats>(words_of(x));
}

// Rounds x; `stored` receives the values of what is returned.
template <class Half>
D3_HD Halves rounded(const Floats& x, Floats& stored) {
#if defined(__F16C__)
  if constexpr (std::is_same_v<Half, F16>) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
    const Halves halves = same_bits<Halves>(_mm512_cvtps_ph(same_bits<__m512>(x), kNearest));
#else
    const Halves halves = same_bits<Halves>(_mm256_cvtps_ph(same_bits<__m256>(x), kNearest));
#endif
    stored = values_of<F16>(halves);
    return halves;
  }
#endif
  const FloatWords words = encode<Half>(x);
  stored = decode<Half, Floats>(words);
  return halves_of(words);
}

template <class Stored, int N>
D3_HD Vec<Stored, N> unpack(const Packed<Stored, N>& x) {
  if constexpr (DTypeTraits<Stored>::kHalf) {
    return values_of<Stored>(x);
  } else {
    return x;
  }
}

template <class Stored, int N>
D3_HD Packed<Stored, N> pack(const Vec<Stored, N>& x, Vec<Stored, N>& stored) {
  if constexpr (DTypeTraits<Stored>::kHalf) {
    return rounded<Stored>(x, stored);
  } else {
    stored = x;
    return x;
  }
}

// Fewer than N elements at the end of an array are padded with zeros, which add nothing.
template <int N, class Stored>
D3_HD Vec<Stored, N> load(const Stored* p, int count) {
  Packed<Stored, N> x{};
  if (count == N) {
    x = *reinterpret_cast<const typename Lanes<Stored, N>::Unaligned*>(p);
  } else {
    memcpy(&x, p, count * sizeof(Stored));
  }
  return unpack<Stored, N>(x);
}

template <int N, class Stored>
D3_HD void store_packed(Stored* p, const Packed<Stored, N>& x, int count) {
  if (count == N) {
    *reinterpret_cast<typename Lanes<Stored, N>::Unaligned*>(p) = x;
  } else {
    memcpy(p, &x, count * sizeof(Stored));
  }
}

template <int N, class Stored>
D3_HD void store(Stored* p, const Vec<Stored, N>& x, int count) {
  Vec<Stored, N> unused;
  store_packed<N>(p, pack<Stored, N>(x, unused), count);
}

// The weights of a chunk, with their compensations where the type has them.
template <class DTypes, bool kTracked>
struct Weights {
  using Weight = typename DTypes::Weight;
  static constexpr bool kCompensated = kTracked && DTypeTraits<Weight>::kHalf;
  static constexpr int N = kWidth<DTypes>;
  Weight* __restrict__ theta;
  Weight* __restrict__ compensation;

  D3_HD Vec<Weight, N> load(int64_t i, int count) const {
    const Vec<Weight, N> known = d3::load<N>(theta + i, count);
    if constexpr (kCompensated) {
      return kahan_load<Weight>(known, d3::load<N>(compensation + i, count));
    } else {
      return known;
    }
  }
  D3_HD void store(int64_t i, const Vec<Weight, N>& x, int count) const {
    Vec<Weight, N> stored;
    store_packed<N>(theta + i, pack<Weight, N>(x, stored), count);
    if constexpr (kCompensated) d3::store<N>(compensation + i, x - stored, count);
  }
};

}  // namespace
}  // namespace d3
