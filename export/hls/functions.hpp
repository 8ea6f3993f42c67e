// The two functions of the layer that are no sums of products: GELU and the exponential of a softmax. Tables only.
#pragma once

#include "moe_config.hpp"

// gelu(x) = relu(x) - delta(|x|): delta is even, at most 0.17 and below one step from 5.5 on, so that a small table in
// steps of 1/32, addressed by a shift, does for every x (Edge-MoE, ICCAD 2023).
inline Activation gelu(Activation x) {
    const int shift = ACTIVATION_FRACTION - GELU_STEPS_LOG2;
    const Integer<ACTIVATION_BITS + 1> magnitude = x < 0 ? Integer<ACTIVATION_BITS + 1>(-Integer<ACTIVATION_BITS + 1>(x))
                                                         : Integer<ACTIVATION_BITS + 1>(x);
    const Activation positive = x > 0 ? x : Activation(0);
    const int step = int(magnitude >> shift);
    if (step >= GELU_ENTRIES - 1)
        return positive;
    const std::int64_t rest = std::int64_t(magnitude) - (std::int64_t(step) << shift);
    const std::int64_t slope = std::int64_t(GELU_TABLE[step + 1]) - GELU_TABLE[step];
    return saturate<ACTIVATION_BITS, 64>(Integer<64>(positive) - GELU_TABLE[step] - ((slope * rest) >> shift));
}

// exp(-distance) for a distance of at least 0 between logits: a power of two, of which a shift takes the whole part and
// a table, interpolated, the rest.
inline Exponential exp_of_minus(Distance distance) {
    const Integer<64> power = (Integer<64>(distance) * LOG2_E) >> LOGIT_FRACTION; // LOG2_E has LOGIT_FRACTION places too
    const Integer<64> whole = power >> LOGIT_FRACTION;
    if (whole >= EXP_FRACTION + 1)
        return 0;
    const int shift = LOGIT_FRACTION - EXP_STEPS_LOG2;
    const int part = int(power - (whole << LOGIT_FRACTION));
    const int step = part >> shift;
    const std::int64_t rest = part - (std::int64_t(step) << shift);
    const std::int64_t fall = std::int64_t(EXP_TABLE[step]) - EXP_TABLE[step + 1];
    return Exponential((EXP_TABLE[step] - ((fall * rest) >> shift)) >> int(whole));
}
