// Fixed-point arithmetic on integers of a stated width; where the binary point stands is a constant of each value.
//
// Under Vitis HLS the integers are `ap_int`, so that the hardware has exactly these widths. Any other compiler takes the
// narrowest of its own types that holds them: no value ever leaves its width, so both compute the same.
#pragma once

#include <cstdint>

#if defined(__VITIS_HLS__) || defined(__SYNTHESIS__) || defined(EDGEMTL_AP_TYPES)
#include <ap_int.h>
template <int BITS> using Integer = ap_int<BITS>;
#else
#include <type_traits>
template <int BITS>
using Integer = std::conditional_t<(BITS <= 16), std::int16_t,
                                   std::conditional_t<(BITS <= 32), std::int32_t, std::int64_t>>;
#endif

// The exact product of two integers.
template <int A, int B> Integer<A + B> multiply(Integer<A> a, Integer<B> b) {
    static_assert(A + B <= 64, "a product wider than 64 bits is not simulated");
    return Integer<A + B>(a) * Integer<A + B>(b);
}

// The nearest integer of TO bits, and the nearest end of their range for what lies beyond it.
template <int TO, int FROM> Integer<TO> saturate(Integer<FROM> value) {
    const Integer<FROM> highest = (Integer<FROM>(1) << (TO - 1)) - 1;
    if (value > highest)
        return Integer<TO>(highest);
    if (value < -highest - 1)
        return Integer<TO>(-highest - 1);
    return Integer<TO>(value);
}

// A value with SHIFT fewer binary places: rounded to the nearest, halves up, then saturated to TO bits.
template <int TO, int SHIFT, int FROM> Integer<TO> narrow(Integer<FROM> value) {
    static_assert(SHIFT > 0 && FROM < 64, "there must be places to round away, and one bit for the carry");
    const Integer<FROM + 1> half = Integer<FROM + 1>(1) << (SHIFT - 1);
    return saturate<TO, FROM + 1>(Integer<FROM + 1>((Integer<FROM + 1>(value) + half) >> SHIFT));
}
