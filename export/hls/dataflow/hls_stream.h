// hls::stream for C simulation with FIFOs as deep as the hardware's. The layers of a dataflow region run as threads, one
// at a time, and a layer waits where it reads from an empty FIFO or writes to a full one. Whether all come to their end
// depends on depths alone, not on which layer runs when (Kahn 1974). Where none can go on, the smallest full FIFO among
// those that wait for each other in a circle gets one more place (Geilen and Basten, ESOP 2003), so that a simulation
// always ends, and says which depths it needed.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace dataflow {

class Region;

// How deep a stream is, and the numbers of the layers at its ends; one outside of a region is as deep as it must be.
struct Fifo {
    Region *region = nullptr;
    int *depth = nullptr;
    int writer = -1, reader = -1;
};

class Region {
  public:
    void connect(Fifo &fifo, int &depth, int writer, int reader) { fifo = {this, &depth, writer, reader}; }

    void start(std::function<void()> work) { layers.emplace_back().work = std::move(work); }

    void run() {
        able = int(layers.size());
        std::vector<std::thread> threads;
        for (std::size_t number = 0; number < layers.size(); ++number)
            threads.emplace_back([this, number] { work(int(number)); });
        for (std::thread &thread : threads)
            thread.join();
    }

    // Called by the layer that runs: it waits until `wake` is called for the other end of `fifo`.
    void wait(const Fifo &fifo, bool writing) {
        Layer &layer = layers[writing ? fifo.writer : fifo.reader];
        layer.waits_for = &fifo;
        layer.writing = writing;
        if (--able == 0)
            resolve();
        std::unique_lock<std::mutex> lock(baton, std::adopt_lock);
        layer.woken.wait(lock, [&layer] { return layer.waits_for == nullptr; });
        lock.release();
    }

    void wake(const Fifo &fifo, bool writing) {
        Layer &layer = layers[writing ? fifo.writer : fifo.reader];
        if (layer.waits_for == &fifo) {
            layer.waits_for = nullptr;
            ++able;
            layer.woken.notify_one();
        }
    }

    // Whether a layer reads more than another writes: then nothing helps, and reading gives zeros.
    bool starved = false;

  private:
    struct Layer {
        std::function<void()> work;
        const Fifo *waits_for = nullptr;
        bool writing = false;
        std::condition_variable woken;
    };

    void work(int number) {
        baton.lock();
        layers[number].work();
        if (--able == 0)
            resolve();
        baton.unlock();
    }

    // None is able to go on: give the smallest full FIFO of a circle one more place.
    void resolve() {
        int number = -1;
        for (std::size_t each = 0; each < layers.size(); ++each)
            if (layers[each].waits_for)
                number = int(each);
        if (number < 0)
            return; // all have come to their end
        for (std::size_t step = 0; step < layers.size() && layers[number].waits_for; ++step)
            number = awaited(number); // after as many steps it is in the circle
        const Fifo *smallest = nullptr;
        int each = number;
        for (std::size_t step = 0; step < layers.size() && layers[each].waits_for; ++step, each = awaited(each))
            if (layers[each].writing && (!smallest || *layers[each].waits_for->depth < *smallest->depth))
                smallest = layers[each].waits_for;
        if (layers[number].waits_for && smallest) {
            ++*smallest->depth;
            return wake(*smallest, true);
        }
        starved = true;
        for (Layer &layer : layers)
            if (layer.waits_for)
                wake(*layer.waits_for, layer.writing);
    }

    int awaited(int number) const {
        const Layer &layer = layers[number];
        return layer.writing ? layer.waits_for->reader : layer.waits_for->writer;
    }

    std::mutex baton; // whoever holds it runs
    std::deque<Layer> layers;
    int able = 0;
};

} // namespace dataflow

namespace hls {

template <class T> class stream {
  public:
    dataflow::Fifo fifo;

    stream() = default;
    explicit stream(const std::string &) {}
    stream(const stream &) = delete;
    stream &operator=(const stream &) = delete;

    bool empty() const { return values.empty(); }
    bool full() const { return fifo.region && values.size() >= std::size_t(*fifo.depth); }
    std::size_t size() const { return values.size(); }

    T read() {
        while (values.empty()) {
            if (!fifo.region || fifo.region->starved)
                return T();
            fifo.region->wait(fifo, false);
        }
        T value = values.front();
        values.pop_front();
        if (fifo.region)
            fifo.region->wake(fifo, true);
        return value;
    }

    void write(const T &value) {
        while (full() && !fifo.region->starved)
            fifo.region->wait(fifo, true);
        values.push_back(value);
        if (fifo.region)
            fifo.region->wake(fifo, false);
    }

    void read(T &value) { value = read(); }
    void operator>>(T &value) { value = read(); }
    void operator<<(const T &value) { write(value); }

  private:
    std::deque<T> values;
};

} // namespace hls
