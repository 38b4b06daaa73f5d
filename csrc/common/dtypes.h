// SPDX-License-Identifier: Apache-2.0
//
// The dtypes of a group's arrays. float and double are stored as they are; the half types bfloat16
// and float16 as 16 bits that are widened to float for every computation and rounded to nearest
// even when stored. A weight of a half type keeps what rounding took off in a second array (Kahan):
//
//   x = theta + c,   theta <- round(x),   c <- round(x - theta)
//
// Conversions are integer arithmetic, the same bits on every CPU; a GPU has instructions for them.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "common/step_math.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace d3 {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

// Of a stored type: torch's name; Real, the type it is computed in; whether it is a half type; and
// the rounding error of tracked weights of that type, relative to themselves and absolute.
template <class Stored>
struct DTypeTraits {
  using Real = Stored;
  static constexpr const char* kName = sizeof(Stored) == 4 ? "float32" : "float64";
  static constexpr bool kHalf = false;
  static constexpr double kRelative = std::numeric_limits<Stored>::epsilon(), kAbsolute = 0;
};
template <>
struct DTypeTraits<Bf16> {
  using Real = float;
  static constexpr const char* kName = "bfloat16";
  static constexpr bool kHalf = true;
  static constexpr double kRelative = 0x1p-17, kAbsolute = 0;
  static constexpr float kEpsilon = 0x1p-7f;  // torch.finfo(...).eps
};
template <>
struct DTypeTraits<F16> {
  using Real = float;
  static constexpr const char* kName = "float16";
  static constexpr bool kHalf = true;
  static constexpr double kRelative = 0x1p-22, kAbsolute = 0x1p-25;
  static constexpr float kEpsilon = 0x1p-10f;
};

// The types of a group's arrays. Gradients and compensations have the type of the weights.
template <class WeightType, class MomentumType, class ReferenceType>
struct DTypeTriple {
  using Weight = WeightType;
  using MomentumBuffer = MomentumType;
  using Reference = ReferenceType;
  using Real = typename DTypeTraits<WeightType>::Real;
};

// The triples that each backend has kernels for.
template <class... Triples>
struct DTypeTriples {};
#ifdef D3_CPU_DTYPES  // those that a test uses: under a sanitizer each takes long to compile
using CpuDTypes = D3_CPU_DTYPES;
#else
using CpuDTypes = DTypeTriples<DTypeTriple<float, float, float>, DTypeTriple<float, float, Bf16>,
                               DTypeTriple<float, Bf16, Bf16>, DTypeTriple<double, double, double>,
                               DTypeTriple<Bf16, Bf16, Bf16>, DTypeTriple<Bf16, float, Bf16>,
                               DTypeTriple<F16, F16, F16>, DTypeTriple<F16, float, F16>>;
#endif
using CudaDTypes = DTypeTriples<DTypeTriple<float, float, float>, DTypeTriple<float, float, Bf16>,
                                DTypeTriple<float, Bf16, Bf16>, DTypeTriple<Bf16, Bf16, Bf16>,
                                DTypeTriple<Bf16, float, Bf16>, DTypeTriple<F16, F16, F16>,
                                DTypeTriple<F16, float, F16>>;

// A triple by torch's names, such as "bfloat16".
struct DTypeNames {
  std::string weight, momentum, reference;
};

inline bool is_half(const std::string& name) {
  return name == DTypeTraits<Bf16>::kName || name == DTypeTraits<F16>::kName;
}

// Calls visit(Triple()) for the triple with these names; false where the list does not have it.
template <class... Triples, class Visit>
bool visit_dtypes(DTypeTriples<Triples...>, const DTypeNames& names, const Visit& visit) {
  const auto visit_if = [&](auto triple) {
    using DTypes = decltype(triple);
    const bool named = names.weight == DTypeTraits<typename DTypes::Weight>::kName &&
                       names.momentum == DTypeTraits<typename DTypes::MomentumBuffer>::kName &&
                       names.reference == DTypeTraits<typename DTypes::Reference>::kName;
    if (named) visit(triple);
    return named;
  };
  return (visit_if(Triples()) || ...);
}

// The unsigned integers with as many bits as Vector; the CPU backend's vectors add theirs.
template <class Vector>
struct WordsFor;
template <>
struct WordsFor<float> {
  using Type = uint32_t;
};
template <class Vector>
using WordsOf = typename WordsFor<Vector>::Type;

template <class To, class From>
D3_HD To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

template <class Vector>
D3_HD Vector magnitude(Vector x) {
  return same_bits<Vector>(same_bits<WordsOf<Vector>>(x) & 0x7fffffffu);
}

// Conversions between a half type and float: the 16 bits are the low half of each word.
template <class Vector>
D3_HD WordsOf<Vector> encode_bf16(Vector x) {
  using U = WordsOf<Vector>;
  const U u = same_bits<U>(x);
  const U nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return x == x ? nearest : (u >> 16) | 0x40u;
}

template <class Vector>
D3_HD Vector decode_bf16(WordsOf<Vector> bits) {
  return same_bits<Vector>(bits << 16);
}

// Below the least normal float16, adding 1/2 rounds to a multiple of its least subnormal number.
template <class Vector>
D3_HD WordsOf<Vector> encode_f16(Vector x) {
  using U = WordsOf<Vector>;
  const U all = same_bits<U>(x);
  const U u = all & 0x7fffffffu;
  const U normal = (u - 0x38000000u + 0xfffu + ((u >> 13) & 1u)) >> 13;
  const U small = same_bits<U>(same_bits<Vector>(u) + 0.5f) - 0x3f000000u;
  const U infinite = U() + 0x7c00u;
  const U nan = (u >> 13 & 0x3ffu) | 0x7e00u;
  const U finite = u < 0x38800000u ? small : normal;
  const U large = u > 0x7f800000u ? nan : infinite;
  return (u < 0x47800000u ? finite : large) | ((all >> 16) & 0x8000u);
}

template <class Vector>
D3_HD Vector decode_f16(WordsOf<Vector> bits) {
  using U = WordsOf<Vector>;
  const U magnitude = (bits & 0x7fffu) << 13;
  const U normal = magnitude + 0x38000000u;
  const U small = same_bits<U>(same_bits<Vector>(magnitude + 0x38800000u) - 0x1p-14f);
  const U quiet = magnitude > 0x0f800000u ? U() + 0x400000u : U();
  const U special = (magnitude + 0x70000000u) | quiet;
  const U finite = magnitude < 0x00800000u ? small : normal;
  return same_bits<Vector>((magnitude < 0x0f800000u ? finite : special) | ((bits & 0x8000u) << 16));
}

template <class Half, class Vector>
D3_HD WordsOf<Vector> encode(Vector x) {
  if constexpr (std::is_same_v<Half, Bf16>) {
    return encode_bf16(x);
  } else {
    return encode_f16(x);
  }
}

template <class Half, class Vector>
D3_HD Vector decode(WordsOf<Vector> bits) {
  if constexpr (std::is_same_v<Half, Bf16>) {
    return decode_bf16<Vector>(bits);
  } else {
    return decode_f16<Vector>(bits);
  }
}

// One number, as it is stored and as it is computed with.
template <class Stored>
D3_HD typename DTypeTraits<Stored>::Real widen(Stored x) {
  if constexpr (!DTypeTraits<Stored>::kHalf) {
    return x;
  } else {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<Stored, F16>) return __half2float(__ushort_as_half(x.bits));
#endif
    return decode<Stored, float>(x.bits);
  }
}

template <class Stored>
D3_HD Stored narrow(typename DTypeTraits<Stored>::Real x) {
  if constexpr (!DTypeTraits<Stored>::kHalf) {
    return x;
  } else {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<Stored, F16>) return {__half_as_ushort(__float2half_rn(x))};
    if constexpr (std::is_same_v<Stored, Bf16>)
      return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
    return {static_cast<uint16_t>(encode<Stored>(x))};
  }
}

// theta + c, the weight that steps are taken from. A compensation of more than half a spacing does
// not belong to this theta, which was changed since, and counts as 0: half a spacing is at most
// half an epsilon of the weight. Written as `<` of a little more, for no number lies in between, so
// that an infinite theta does not take its infinite compensation.
template <class Half, class Vector>
D3_HD Vector kahan_load(Vector theta, Vector c) {
  constexpr float kEpsilon = DTypeTraits<Half>::kEpsilon;
  constexpr float kMost = kEpsilon / 2 * (1 + kEpsilon / 4);
  return theta + (magnitude(c) < magnitude(theta) * kMost ? c : Vector());
}

// How far storing the weights of a norm group, which one step does twice, may move their norm.
template <class Stored>
D3_HD double rounding_of_norm(double weight_norm, int64_t elements) {
  using Traits = DTypeTraits<Stored>;
  if constexpr (Traits::kAbsolute == 0) return 2 * Traits::kRelative * weight_norm;
  return 2 * (Traits::kRelative * weight_norm +
              Traits::kAbsolute * sqrt(static_cast<double>(elements)));
}

}  // namespace d3
