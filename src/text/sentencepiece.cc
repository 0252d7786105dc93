// libsentencepiece for C (the binding declared in sentencepiece.h).
#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

struct mn__sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
};

namespace
{

// Runs `work`, which may throw, and turns what it throws into a status.
template <typename Work> mn_status guarded(mn_error *error, Work work)
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return mn__fail(error, MN_ERROR_MEMORY, nullptr, "SentencePiece: out of memory");
    } catch (const std::exception &thrown) {
        return mn__fail(error, MN_ERROR_FORMAT, nullptr, "SentencePiece: %s", thrown.what());
    }
}

class Lines : public sentencepiece::SentenceIterator
{
  public:
    explicit Lines(const mn__sentencepiece_training *training) : training_(training)
    {
        take();
    }
    bool done() const override
    {
        return at_ >= training_->lines;
    }
    void Next() override
    {
        at_++;
        take();
    }
    const std::string &value() const override
    {
        return line_;
    }
    sentencepiece::util::Status status() const override
    {
        return sentencepiece::util::Status();
    }

  private:
    void take()
    {
        if (done())
            return;
        int64_t begin = training_->begins[at_], end = training_->begins[at_ + 1];
        line_.assign(training_->text + begin, static_cast<size_t>(end - begin));
    }

    const mn__sentencepiece_training *training_;
    int64_t at_ = 0;
    std::string line_;
};

std::unordered_map<std::string, std::string> settings(const mn__sentencepiece_training *training)
{
    return {
        {"model_type", training->unigram ? "unigram" : "bpe"},
        {"vocab_size", std::to_string(training->vocab)},
        {"normalization_rule_name", "identity"},
        {"add_dummy_prefix", "false"},
        {"remove_extra_whitespaces", "false"},
        {"allow_whitespace_only_pieces", "true"},
        {"byte_fallback", "true"},
        {"user_defined_symbols", "\n"},
        {"max_sentence_length", std::to_string(training->longest + 1)},
        {"num_threads", std::to_string(training->threads)},
        {"minloglevel", "2"},
    };
}

} // namespace

extern "C" {

mn_status mn__sentencepiece_parse(mn__sentencepiece **out, const char *model, int64_t bytes,
                                  mn_error *error)
{
    return guarded(error, [&] {
        auto parsed = std::make_unique<mn__sentencepiece>(); // loading may throw
        auto status =
            parsed->processor.LoadFromSerializedProto({model, static_cast<size_t>(bytes)});
        if (!status.ok() || parsed->processor.GetPieceSize() == 0) {
            return mn__fail(error, MN_ERROR_FORMAT, "give a SentencePiece .model file",
                            "not a SentencePiece model (%s)", status.ToString().c_str());
        }
        *out = parsed.release();
        return MN_OK;
    });
}

void mn__sentencepiece_free(mn__sentencepiece *model)
{
    delete model;
}

int32_t mn__sentencepiece_vocab(const mn__sentencepiece *model)
{
    return model->processor.GetPieceSize();
}

const char *mn__sentencepiece_piece(const mn__sentencepiece *model, int32_t id,
                                    mn__piece_kind *kind)
{
    const auto &processor = model->processor;
    *kind = processor.IsByte(id)                                ? MN__PIECE_BYTE
            : processor.IsUnknown(id)                           ? MN__PIECE_UNKNOWN
            : processor.IsControl(id) || processor.IsUnused(id) ? MN__PIECE_CONTROL
                                                                : MN__PIECE_NORMAL;
    return processor.IdToPiece(id).c_str();
}

float mn__sentencepiece_score(const mn__sentencepiece *model, int32_t id)
{
    return model->processor.GetScore(id);
}

int32_t mn__sentencepiece_find(const mn__sentencepiece *model, const char *piece)
{
    int id = model->processor.PieceToId(piece);
    return model->processor.IdToPiece(id) == piece ? id : -1;
}

int32_t mn__sentencepiece_begin(const mn__sentencepiece *model)
{
    return model->processor.bos_id();
}

mn_status mn__sentencepiece_encode(const mn__sentencepiece *model, const char *text, int64_t bytes,
                                   mn__ids *ids, mn_error *error)
{
    if (bytes > int64_t{1} << 30)
        return mn__fail(error, MN_ERROR_UNSUPPORTED,
                        "use a vocabulary trained by mneme: it is read line by line",
                        "a document of %lld bytes is too long for this SentencePiece model, "
                        "which normalises it as a whole",
                        static_cast<long long>(bytes));
    return guarded(error, [&] {
        std::vector<int> found;
        auto status = model->processor.Encode({text, static_cast<size_t>(bytes)}, &found);
        if (!status.ok())
            return mn__fail(error, MN_ERROR_FORMAT, nullptr, "SentencePiece: %s",
                            status.ToString().c_str());
        int32_t *to = mn__ids_extend(ids, static_cast<int64_t>(found.size()));
        for (size_t i = 0; to && i < found.size(); i++)
            to[i] = found[i];
        return MN_OK;
    });
}

mn_status mn__sentencepiece_train(const mn__sentencepiece_training *training,
                                  void (*write)(void *user, const void *data, int64_t bytes),
                                  void *user, mn_error *error)
{
    return guarded(error, [&] {
        Lines lines(training);
        std::string model;
        auto status =
            sentencepiece::SentencePieceTrainer::Train(settings(training), &lines, &model);
        if (!status.ok())
            return mn__fail(error, MN_ERROR_OPTION,
                            "choose another vocabulary size, or train on more text",
                            "SentencePiece cannot learn %lld pieces from this text: %s",
                            static_cast<long long>(training->vocab), status.ToString().c_str());
        write(user, model.data(), static_cast<int64_t>(model.size()));
        return MN_OK;
    });
}

} // extern "C"
