// The layer expert by expert (computation reordering, M3ViT section 3.2): all tokens are routed first, then each expert
// that got any computes its whole queue, while the weights that come next are loaded. What is on chip is one matrix in
// use and one that is coming, however many experts there are.
#include "moe.hpp"

#include "functions.hpp"

namespace {

enum Stage { ROUTE, EXPAND, PROJECT };

// The tokens of one expert, and the gate of each.
struct Queue {
    int length;
    std::int16_t tokens[TOKENS];
    Gate gates[TOKENS];
};

// One linear layer's parameters: LARGEST rows and columns hold the router, and either layer of an expert.
struct Matrix {
    Weight weights[LARGEST][LARGEST];
    Bias biases[LARGEST];
};

void load(Matrix &matrix, const std::int16_t *weights, const std::int32_t *biases, int rows, int columns) {
#pragma HLS INLINE off
    for (int row = 0; row < rows; ++row) {
        for (int column = 0; column < columns; ++column) {
#pragma HLS PIPELINE II = 1
            matrix.weights[row][column] = Weight(weights[row * columns + column]);
        }
        matrix.biases[row] = Bias(biases[row]);
    }
}

// Sums of one token with a matrix, with all their binary places: ROW_LANES x COLUMN_LANES products in every cycle.
void multiply_accumulate(const Activation input[LARGEST], const Matrix &matrix, int rows, int columns,
                         Sum sums[LARGEST]) {
#pragma HLS INLINE
    Sum totals[ROW_LANES];
#pragma HLS ARRAY_PARTITION variable = totals complete
    for (int row = 0; row < rows; row += ROW_LANES) {
        for (int column = 0; column < columns; column += COLUMN_LANES) {
#pragma HLS PIPELINE II = 1
            for (int r = 0; r < ROW_LANES; ++r) {
#pragma HLS UNROLL
                Sum products = 0;
                for (int c = 0; c < COLUMN_LANES; ++c) {
#pragma HLS UNROLL
                    if (row + r < rows && column + c < columns)
                        products += multiply<WEIGHT_BITS, ACTIVATION_BITS>(matrix.weights[row + r][column + c],
                                                                           input[column + c]);
                }
                totals[r] = column == 0 ? products : Sum(totals[r] + products);
            }
        }
        for (int r = 0; r < ROW_LANES; ++r) {
#pragma HLS UNROLL
            sums[row + r] = totals[r];
        }
    }
}

// The layer's one linear unit: the router and both layers of every expert take turns on it. It reads the tokens that
// the queue names, or what an expert's first layer gave; it writes logits, or that, or adds to the outputs.
void run_linear(Stage stage, const Matrix &matrix, const Queue &queue, const Activation tokens[TOKENS][LARGEST],
                Activation hidden[TOKENS][LARGEST], Logit logits[TOKENS][EXPERTS],
                Activation outputs[TOKENS][LARGEST]) {
#pragma HLS INLINE off
    const int rows = stage == ROUTE ? EXPERTS : stage == EXPAND ? HIDDEN : WIDTH;
    const int columns = stage == PROJECT ? HIDDEN : WIDTH;
    Activation input[LARGEST];
    Sum sums[LARGEST];
#pragma HLS ARRAY_PARTITION variable = input cyclic factor = COLUMN_LANES
#pragma HLS ARRAY_PARTITION variable = sums cyclic factor = ROW_LANES
    for (int position = 0; position < queue.length; ++position) {
        const int token = queue.tokens[position];
        for (int column = 0; column < columns; ++column) {
#pragma HLS PIPELINE II = 1
            input[column] = stage == PROJECT ? hidden[position][column] : tokens[token][column];
        }
        multiply_accumulate(input, matrix, rows, columns, sums);
        for (int row = 0; row < rows; ++row) {
#pragma HLS PIPELINE II = 1
            const Sum bias = Sum(matrix.biases[row]);
            if (stage == ROUTE) {
                const Sum sum = sums[row] + (bias << (ROUTER_SUM_FRACTION - BIAS_FRACTION));
                logits[token][row] = narrow<LOGIT_BITS, ROUTER_SUM_FRACTION - LOGIT_FRACTION, SUM_BITS>(sum);
            } else if (stage == EXPAND) {
                const Sum sum = sums[row] + (bias << (EXPAND_SUM_FRACTION - BIAS_FRACTION));
                hidden[position][row] = gelu(narrow<ACTIVATION_BITS, EXPAND_FRACTION, SUM_BITS>(sum));
            } else {
                const Sum sum = sums[row] + (bias << (PROJECT_SUM_FRACTION - BIAS_FRACTION));
                const Activation result = narrow<ACTIVATION_BITS, PROJECT_FRACTION, SUM_BITS>(sum);
                const Activation weighted = narrow<ACTIVATION_BITS, GATE_FRACTION, ACTIVATION_BITS + GATE_BITS>(
                    multiply<ACTIVATION_BITS, GATE_BITS>(result, queue.gates[position]));
                outputs[token][row] = saturate<ACTIVATION_BITS, ACTIVATION_BITS + 1>(
                    Integer<ACTIVATION_BITS + 1>(outputs[token][row]) + weighted);
            }
        }
    }
}

// The gates of one token, in one pass over its logits: the largest so far, the sum of exponentials below it, which is
// scaled anew whenever a larger one comes (single-pass softmax), and the largest, of equal ones the earlier. A task whose
// tokens go to fewer than TOP_K experts has gates of 0 for the rest.
void choose(const Logit logits[EXPERTS], int top_k, int chosen[TOP_K], Gate gates[TOP_K]) {
#pragma HLS INLINE off
    Logit largest = logits[0];
    Total total = Total(1) << EXP_FRACTION;
    Logit best[TOP_K];
    for (int expert = 0; expert < EXPERTS; ++expert) {
        const Logit logit = logits[expert];
        if (expert > 0 && logit > largest) {
            const Exponential scale = exp_of_minus(Distance(logit) - largest);
            total = Total(multiply<TOTAL_BITS, EXP_BITS>(total, scale) >> EXP_FRACTION) + (Total(1) << EXP_FRACTION);
            largest = logit;
        } else if (expert > 0) {
            total += exp_of_minus(Distance(largest) - logit);
        }
        int rank = expert < TOP_K ? expert : TOP_K;
        while (rank > 0 && logit > best[rank - 1]) {
            if (rank < TOP_K) {
                best[rank] = best[rank - 1];
                chosen[rank] = chosen[rank - 1];
            }
            --rank;
        }
        if (rank < TOP_K) {
            best[rank] = logit;
            chosen[rank] = expert;
        }
    }
    Exponential exponentials[TOP_K];
    Total of_chosen = 0;
    for (int rank = 0; rank < TOP_K; ++rank) {
        exponentials[rank] = exp_of_minus(Distance(largest) - best[rank]);
        if (rank < top_k)
            of_chosen += exponentials[rank];
    }
    // One division a token: gates are products with the reciprocal.
    const Exponential reciprocal =
        Exponential((Integer<2 * EXP_FRACTION + 2>(1) << (2 * EXP_FRACTION)) / (RENORMALISE ? of_chosen : total));
    for (int rank = 0; rank < TOP_K; ++rank) {
        const Gate gate = narrow<GATE_BITS, 2 * EXP_FRACTION - GATE_FRACTION, 2 * EXP_BITS>(
            multiply<EXP_BITS, EXP_BITS>(exponentials[rank], reciprocal));
        gates[rank] = rank < top_k ? gate : Gate(0);
    }
}

// The queue of every expert, and the experts that have one, in order; returns how many those are.
// A token enters an expert's queue. From a full one goes what counts least there, of equal gates the latest token's
// (V-MoE's batch prioritised routing), if it counts less than the one that comes.
void enter(Queue &queue, int capacity, std::int16_t token, Gate gate) {
#pragma HLS INLINE off
    int place = queue.length;
    if (place < capacity) {
        ++queue.length;
    } else {
        place = 0;
        for (int each = 1; each < capacity; ++each) {
            const bool equal = queue.gates[each] == queue.gates[place];
            if (queue.gates[each] < queue.gates[place] || (equal && queue.tokens[each] > queue.tokens[place]))
                place = each;
        }
        if (gate <= queue.gates[place])
            return;
    }
    queue.tokens[place] = token;
    queue.gates[place] = gate;
}

int fill_queues(const Logit logits[TOKENS][EXPERTS], int count, int top_k, int capacity, Queue queues[EXPERTS], int busy[EXPERTS]) {
#pragma HLS INLINE off
    for (int expert = 0; expert < EXPERTS; ++expert)
        queues[expert].length = 0;
    for (int token = 0; token < count; ++token) {
        int chosen[TOP_K];
        Gate gates[TOP_K];
        choose(logits[token], top_k, chosen, gates);
        for (int rank = 0; rank < TOP_K; ++rank) {
            if (gates[rank] > 0)
                enter(queues[chosen[rank]], capacity, std::int16_t(token), gates[rank]);
        }
    }
    int length = 0;
    for (int expert = 0; expert < EXPERTS; ++expert) {
        if (queues[expert].length > 0)
            busy[length++] = expert;
    }
    return length;
}

} // namespace

void moe_layer(const std::int32_t *tokens, const std::int16_t *router_weights, const std::int32_t *router_biases,
               const std::int16_t *expert_weights, const std::int32_t *expert_biases, std::int32_t *outputs, int count,
               int top_k, int capacity) {
#pragma HLS INTERFACE m_axi port = tokens bundle = activations offset = slave depth = TOKENS * WIDTH
#pragma HLS INTERFACE m_axi port = outputs bundle = activations offset = slave depth = TOKENS * WIDTH
#pragma HLS INTERFACE m_axi port = router_weights bundle = weights offset = slave depth = EXPERTS * WIDTH
#pragma HLS INTERFACE m_axi port = router_biases bundle = biases offset = slave depth = EXPERTS
#pragma HLS INTERFACE m_axi port = expert_weights bundle = weights offset = slave depth = EXPERTS * 2 * WIDTH * HIDDEN
#pragma HLS INTERFACE m_axi port = expert_biases bundle = biases offset = slave depth = EXPERTS * (WIDTH + HIDDEN)
#pragma HLS INTERFACE s_axilite port = count
#pragma HLS INTERFACE s_axilite port = top_k
#pragma HLS INTERFACE s_axilite port = capacity
#pragma HLS INTERFACE s_axilite port = return
#pragma HLS ALLOCATION function instances = run_linear limit = 1

    static Activation in[TOKENS][LARGEST], hidden[TOKENS][LARGEST], out[TOKENS][LARGEST];
    static Logit logits[TOKENS][EXPERTS];
    static Matrix ping, pong;
    static Queue everything, queues[EXPERTS];
#pragma HLS ARRAY_PARTITION variable = ping.weights cyclic factor = ROW_LANES dim = 1
#pragma HLS ARRAY_PARTITION variable = ping.weights cyclic factor = COLUMN_LANES dim = 2
#pragma HLS ARRAY_PARTITION variable = pong.weights cyclic factor = ROW_LANES dim = 1
#pragma HLS ARRAY_PARTITION variable = pong.weights cyclic factor = COLUMN_LANES dim = 2

    everything.length = count;
    for (int token = 0; token < count; ++token) {
        everything.tokens[token] = std::int16_t(token);
        for (int column = 0; column < WIDTH; ++column) {
#pragma HLS PIPELINE II = 1
            in[token][column] = Activation(tokens[token * WIDTH + column]);
            out[token][column] = 0;
        }
    }
    load(ping, router_weights, router_biases, EXPERTS, WIDTH);
    run_linear(ROUTE, ping, everything, in, hidden, logits, out);

    int busy[EXPERTS];
    const int experts = fill_queues(logits, count, top_k, capacity, queues, busy);
    const int matrix = HIDDEN * WIDTH, biases = HIDDEN + WIDTH;
    if (experts > 0)
        load(ping, expert_weights + busy[0] * 2 * matrix, expert_biases + busy[0] * biases, HIDDEN, WIDTH);
    for (int turn = 0; turn < experts; ++turn) {
        const int expert = busy[turn];
        // Neither line of a pair touches what the other does, so that loading and computing go on at once.
        load(pong, expert_weights + (2 * expert + 1) * matrix, expert_biases + expert * biases + HIDDEN, WIDTH, HIDDEN);
        run_linear(EXPAND, ping, queues[expert], in, hidden, logits, out);

        if (turn + 1 < experts)
            load(ping, expert_weights + busy[turn + 1] * 2 * matrix, expert_biases + busy[turn + 1] * biases, HIDDEN,
                 WIDTH);
        run_linear(PROJECT, pong, queues[expert], in, hidden, logits, out);
    }
    for (int token = 0; token < count; ++token) {
        for (int column = 0; column < WIDTH; ++column) {
#pragma HLS PIPELINE II = 1
            outputs[token * WIDTH + column] = std::int32_t(out[token][column]);
        }
    }
}
